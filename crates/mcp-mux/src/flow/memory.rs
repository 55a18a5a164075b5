//! What one reader read lately.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use tenant_store::TenantId;
use tokio::time::Instant;

use super::REMEMBERED;
use super::prints::{Print, Prints};

/// Most prints that are remembered of one reader. Of the tenant that says most, what was read longest ago goes first.
const PRINTS_MAX: usize = 100_000;
/// Of so many tenants one reader's prints are kept apart; the one that said something longest ago makes room.
const TENANTS_MAX: usize = 64;
/// How many pieces of running text must be the same: one alone may be a common phrase.
const PIECES_MIN: usize = 2;

/// The prints of what one reader read.
#[derive(Debug, Default)]
pub(super) struct Memory {
    seen: HashMap<u64, Seen, RandomState>,
    tenants: Vec<(TenantId, Instant)>,
}

/// Who knows a print. Tenants are bits, by their place in the list.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Those that said it.
    said_by: u64,
    /// Those that said or heard it.
    known_to: u64,
    at: Instant,
}

impl Memory {
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// `tenant` said this.
    pub(super) fn read(&mut self, tenant: TenantId, prints: &Prints, now: Instant) {
        self.make_room(prints.len(), now);
        let bit = self.bit_of(tenant, now);
        for print in prints.all() {
            let seen = self.seen.entry(print).or_insert(Seen { said_by: 0, known_to: 0, at: now });
            // What was forgotten, and only not swept away yet, is read as if for the first time.
            if now.saturating_duration_since(seen.at) > REMEMBERED {
                *seen = Seen { said_by: 0, known_to: 0, at: now };
            }
            seen.said_by |= bit;
            seen.known_to |= bit;
            seen.at = now;
        }
    }

    /// Who said what of this, of which `tenant` knows nothing.
    pub(super) fn find(
        &self,
        tenant: TenantId,
        prints: &Prints,
        known: impl FnOnce() -> Prints,
        now: Instant,
    ) -> Option<(Vec<TenantId>, Vec<u64>)> {
        let bit = self.place(tenant).map_or(0, |place| 1 << place);
        let is_news = |print: &u64| {
            self.seen
                .get(print)
                .is_some_and(|seen| seen.known_to & bit == 0 && now.saturating_duration_since(seen.at) <= REMEMBERED)
        };
        let mut found: Vec<Print> = prints.each().filter(|print| is_news(&print.value())).collect();
        if is_enough(&found) {
            let known = known();
            found.retain(|print| !known.has(*print));
        }
        if !is_enough(&found) {
            return None;
        }
        let found: Vec<u64> = found.iter().map(|print| print.value()).collect();
        let said_by = found.iter().filter_map(|print| self.seen.get(print)).fold(0, |bits, seen| bits | seen.said_by);
        let from = self.tenants.iter().enumerate().filter(|(place, _)| said_by & (1 << place) != 0);
        Some((from.map(|(_, (tenant, _))| *tenant).collect(), found))
    }

    /// `tenant` hears what these are of.
    pub(super) fn told(&mut self, tenant: TenantId, prints: &[u64], now: Instant) {
        let bit = self.bit_of(tenant, now);
        for print in prints {
            if let Some(seen) = self.seen.get_mut(print) {
                seen.known_to |= bit;
            }
        }
    }

    fn place(&self, tenant: TenantId) -> Option<usize> {
        self.tenants.iter().position(|(known, _)| *known == tenant)
    }

    fn bit_of(&mut self, tenant: TenantId, now: Instant) -> u64 {
        let place = match self.place(tenant) {
            Some(place) => place,
            None if self.tenants.len() < TENANTS_MAX => {
                self.tenants.push((tenant, now));
                self.tenants.len() - 1
            }
            None => self.replace(tenant, now),
        };
        if let Some((_, at)) = self.tenants.get_mut(place) {
            *at = now;
        }
        1 << place
    }

    /// Gives `tenant` the place of the one that said something longest ago, of which everything is forgotten.
    fn replace(&mut self, tenant: TenantId, now: Instant) -> usize {
        let oldest = self.tenants.iter().enumerate().min_by_key(|(_, (_, at))| *at).map_or(0, |(place, _)| place);
        let bit = 1 << oldest;
        self.seen.retain(|_, seen| {
            seen.said_by &= !bit;
            seen.known_to &= !bit;
            seen.said_by != 0
        });
        if let Some(slot) = self.tenants.get_mut(oldest) {
            *slot = (tenant, now);
        }
        oldest
    }

    /// Forgets until there is room for `more`: what is old first, then what is not so old of the tenant that has said most. Nobody talks another
    /// tenant's text out of memory.
    fn make_room(&mut self, more: usize, now: Instant) {
        let is_full = |seen: &HashMap<_, _, _>| seen.len() + more > PRINTS_MAX;
        if is_full(&self.seen) {
            self.seen.retain(|_, seen| now.saturating_duration_since(seen.at) <= REMEMBERED);
        }
        let (mut talker, mut age_max) = (0, REMEMBERED);
        while is_full(&self.seen) && !self.seen.is_empty() {
            let loudest = self.loudest();
            if loudest != talker {
                (talker, age_max) = (loudest, REMEMBERED);
            }
            age_max = if age_max > Duration::from_secs(1) { age_max / 2 } else { Duration::ZERO };
            self.seen.retain(|_, seen| seen.said_by & talker == 0 || now.saturating_duration_since(seen.at) < age_max);
        }
    }

    /// The tenant of which most is remembered.
    fn loudest(&self) -> u64 {
        let said = |bit: &u64| self.seen.values().filter(|seen| seen.said_by & bit != 0).count();
        (0..self.tenants.len()).map(|place| 1 << place).max_by_key(said).unwrap_or(u64::MAX)
    }
}

/// One thing that is somebody's own, or enough of a running text.
fn is_enough(found: &[Print]) -> bool {
    let pieces = found.iter().filter(|print| matches!(print, Print::Piece(_))).count();
    pieces >= PIECES_MIN || found.len() > pieces
}
