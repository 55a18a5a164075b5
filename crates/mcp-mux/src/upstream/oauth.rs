//! Access tokens for upstreams: asked for at an authorization server, held for one link, and used for nothing else.
//!
//! A [`Question`] is one request to a token endpoint, complete with the opened secret of our client; whoever makes it decides which
//! authorization grant it is for. A [`Held`] is the token of one link: however many need it, one asks. What an authorization server
//! says is never passed on; [`OAuthError`] says in our words what it comes to.

mod assertion;
mod client;
mod code;
mod discovery;
mod error;
mod held;
mod question;
mod server;

pub(super) use client::ClientSecret;
pub(super) use code::{CodeClient, CodeGrant, Granted, NotGranted, Registration, register};
pub(super) use discovery::{Metadata, metadata, trusted_issuer};
pub(crate) use error::OAuthError;
pub(super) use held::{AccessToken, Getting, Held};
pub(super) use question::{AuthorizationGrant, Occasion, Question};
pub(super) use server::{Http, Server};
