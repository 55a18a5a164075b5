//! Callers that are revoked: nobody is let in as a revoked principal, and a revoked group gives nobody anything.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use tenant_store::{Group, IssuerName, Revocation, Revoked, Subject};

use crate::caller::Principal;

/// The callers that are revoked. Few, and most often none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedCallers {
    principals: HashMap<IssuerName, HashSet<Subject, RandomState>, RandomState>,
    groups: HashMap<IssuerName, HashSet<Group, RandomState>, RandomState>,
}

impl RevokedCallers {
    /// Those among what is revoked.
    pub fn of(revocations: &[Revocation]) -> Self {
        let mut callers = Self::default();
        for Revocation { what, .. } in revocations {
            match what {
                Revoked::Principal { issuer, subject } => {
                    callers.principals.entry(issuer.clone()).or_default().insert(subject.clone());
                }
                Revoked::Group { issuer, group } => {
                    callers.groups.entry(issuer.clone()).or_default().insert(group.clone());
                }
                Revoked::Tenant { .. } | Revoked::Upstream { .. } | Revoked::Tool { .. } => {}
            }
        }
        callers
    }

    /// Whether that principal is revoked.
    pub fn has(&self, Principal { issuer, subject }: &Principal) -> bool {
        self.principals.get(issuer).is_some_and(|subjects| subjects.contains(subject))
    }

    /// Whether that group of that issuer is revoked.
    pub fn has_group(&self, issuer: &IssuerName, group: &Group) -> bool {
        self.groups.get(issuer).is_some_and(|groups| groups.contains(group))
    }

    /// The groups that still count.
    pub(super) fn without<'g>(&self, issuer: &IssuerName, groups: &'g [Group]) -> impl Iterator<Item = &'g Group> {
        let revoked = self.groups.get(issuer);
        groups.iter().filter(move |group| revoked.is_none_or(|revoked| !revoked.contains(*group)))
    }
}
