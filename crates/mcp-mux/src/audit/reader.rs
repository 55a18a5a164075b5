//! Reading a chain as it is checked: by writer and number, what was deleted of a part before it, and each checkpoint behind the line that it
//! covers.

use std::collections::VecDeque;

use tenant_store::{
    AUDIT_PAGE_ROWS, AuditCheckpoint, AuditPruned, AuditRow, AuditWriterId, Still, StoreError, TenantScope,
};

/// Reads a chain.
pub(super) struct Reader<'s> {
    still: &'s Still,
    scope: Option<TenantScope>,
    pruned: Pages<AuditPruned, AuditWriterId>,
    checkpoints: Pages<AuditCheckpoint, Place>,
    after: Option<Place>,
}

type Place = (AuditWriterId, u64);

/// What is read page by page beside the rows.
struct Pages<T, P> {
    next: VecDeque<T>,
    last: Option<P>,
    are_all_read: bool,
}

/// One of what is read.
#[derive(Debug)]
pub(super) enum Piece {
    Pruned(AuditPruned),
    Row(AuditRow),
    Checkpoint(AuditCheckpoint),
}

impl<'s> Reader<'s> {
    /// Of a tenant, or of the platform.
    pub(super) fn new(still: &'s Still, scope: Option<TenantScope>) -> Self {
        Self { still, scope, pruned: Pages::default(), checkpoints: Pages::default(), after: None }
    }

    /// The next pieces; none at the end.
    pub(super) async fn pieces(&mut self) -> Result<Vec<Piece>, StoreError> {
        let rows = match self.scope {
            Some(scope) => self.still.tenant(scope).audit_rows(self.after).await?,
            None => self.still.platform_audit_rows(self.after).await?,
        };
        let mut pieces = Vec::with_capacity(rows.len());
        let is_end = (rows.len() as u64) < AUDIT_PAGE_ROWS;
        for row in rows {
            let place = (row.writer, row.seq);
            // One whose line is not there stands where it would be.
            self.before(place, &mut pieces).await?;
            pieces.push(Piece::Row(row));
            self.after = Some(place);
        }
        if is_end {
            self.before((AuditWriterId::last(), u64::MAX), &mut pieces).await?;
        }
        Ok(pieces)
    }

    /// What stands before that place: of each part first what was deleted of it.
    async fn before(&mut self, place: Place, pieces: &mut Vec<Piece>) -> Result<(), StoreError> {
        loop {
            self.fill().await?;
            let pruned = self.pruned.next.front().map(|AuditPruned(pruned)| (pruned.writer, 0));
            let checkpoint = self.checkpoints.next.front().map(|next| (next.writer, next.seq));
            let is_before = |next: &Place| *next < place;
            match (pruned.filter(is_before), checkpoint.filter(is_before)) {
                (None, None) => return Ok(()),
                (Some(pruned), other) if other.is_none_or(|other| pruned < other) => {
                    pieces.extend(self.pruned.next.pop_front().map(Piece::Pruned));
                }
                _ => pieces.extend(self.checkpoints.next.pop_front().map(Piece::Checkpoint)),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), StoreError> {
        if self.pruned.is_to_be_read() {
            let after = self.pruned.last;
            let page = match self.scope {
                Some(scope) => self.still.tenant(scope).audit_pruned(after).await?,
                None => self.still.platform_audit_pruned(after).await?,
            };
            self.pruned.put(page, |AuditPruned(last)| last.writer);
        }
        if self.checkpoints.is_to_be_read() {
            let after = self.checkpoints.last;
            let page = match self.scope {
                Some(scope) => self.still.tenant(scope).audit_checkpoints(after).await?,
                None => self.still.platform_audit_checkpoints(after).await?,
            };
            self.checkpoints.put(page, |last| (last.writer, last.seq));
        }
        Ok(())
    }
}

impl<T, P: Copy> Pages<T, P> {
    fn is_to_be_read(&self) -> bool {
        self.next.is_empty() && !self.are_all_read
    }

    fn put(&mut self, page: Vec<T>, place: impl Fn(&T) -> P) {
        self.are_all_read = (page.len() as u64) < AUDIT_PAGE_ROWS;
        self.last = page.last().map(place).or(self.last);
        self.next = page.into();
    }
}

impl<T, P> Default for Pages<T, P> {
    fn default() -> Self {
        Self { next: VecDeque::new(), last: None, are_all_read: false }
    }
}
