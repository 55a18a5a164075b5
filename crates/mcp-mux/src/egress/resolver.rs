//! Names become addresses here, and the addresses are judged before a connection is made to any of them. What is judged is what
//! is connected to: nothing looks the name up again in between.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Destinations;
use crate::config::EgressConfig;

/// The resolver of the operating system.
pub(super) struct System;

/// A resolver whose answers are judged. One address that may not be called spoils the whole answer: a name that leads inside now
/// and then is not one to call at other times.
pub(super) struct Vetted {
    pub(super) destinations: Destinations,
    pub(super) rules: Arc<EgressConfig>,
    pub(super) names: Arc<dyn Resolve>,
}

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

impl Resolve for Vetted {
    fn resolve(&self, name: Name) -> Resolving {
        let (destinations, rules) = (self.destinations, Arc::clone(&self.rules));
        let found = self.names.resolve(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = found.await?.collect();
            for address in &found {
                destinations.judge(&rules, address.ip())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
