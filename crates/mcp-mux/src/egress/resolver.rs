//! Names become addresses here, and the addresses are judged before a connection is made to any of them. What is judged is what
//! is connected to: nothing looks the name up again in between.

use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower::Service;

use super::Destinations;
use crate::config::EgressConfig;

/// How many names one pool looks up at once. The operating system cannot be told to stop, so a look-up keeps its place until it
/// ends, whether somebody still waits or not.
const LOOK_UPS_MAX: usize = 8;

type BoxError = Box<dyn Error + Send + Sync>;

/// What a name leads to. The ports are nothing yet.
pub(super) type Found = BoxFuture<'static, Result<Vec<SocketAddr>, BoxError>>;

/// Looks names up.
pub(super) trait Resolve: Send + Sync {
    /// The addresses of `name`.
    fn resolve(&self, name: String) -> Found;
}

/// The resolver of the operating system.
pub(super) struct System(Arc<Semaphore>);

impl Default for System {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOK_UPS_MAX)))
    }
}

/// A resolver whose answers are judged. One address that may not be called spoils the whole answer: a name that leads inside now
/// and then is not one to call at other times.
#[derive(Clone)]
pub(super) struct Vetted {
    pub(super) destinations: Destinations,
    pub(super) rules: Arc<EgressConfig>,
    pub(super) names: Arc<dyn Resolve>,
}

impl Resolve for System {
    fn resolve(&self, name: String) -> Found {
        let places = Arc::clone(&self.0);
        Box::pin(async move {
            let place = places.acquire_owned().await?;
            let look_up = move || {
                let _place = place;
                Ok((name.as_str(), 0).to_socket_addrs()?.collect())
            };
            tokio::task::spawn_blocking(look_up).await?
        })
    }
}

impl Service<Name> for Vetted {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (destinations, rules) = (self.destinations, Arc::clone(&self.rules));
        let found = self.names.resolve(name.as_str().to_owned());
        Box::pin(async move {
            let found = found.await?;
            for address in &found {
                destinations.judge(&rules, address.ip())?;
            }
            Ok(found.into_iter())
        })
    }
}
