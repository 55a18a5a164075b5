//! Names become addresses here, and the addresses are judged before a connection is made to any of them. What is judged is what
//! is connected to: nothing looks the name up again in between.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::Destinations;
use crate::config::EgressConfig;

/// How many names one pool looks up at once. The operating system cannot be told to stop, so a look-up keeps its place until it
/// ends, whether somebody still waits or not.
const LOOK_UPS_MAX: usize = 8;

/// The resolver of the operating system.
pub(super) struct System(Arc<Semaphore>);

impl Default for System {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOK_UPS_MAX)))
    }
}

/// A resolver whose answers are judged. One address that may not be called spoils the whole answer: a name that leads inside now
/// and then is not one to call at other times.
pub(super) struct Vetted {
    pub(super) destinations: Destinations,
    pub(super) rules: Arc<EgressConfig>,
    pub(super) names: Arc<dyn Resolve>,
}

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        let places = Arc::clone(&self.0);
        Box::pin(async move {
            let place = places.acquire_owned().await?;
            let look_up = move || {
                let _place = place;
                (name.as_str(), 0).to_socket_addrs()
            };
            Ok(Box::new(tokio::task::spawn_blocking(look_up).await??) as Addrs)
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
