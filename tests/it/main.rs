//! The product seen from outside: a whole server on a free port, real signed tokens, real upstreams, real clients.

mod support;

mod bytes;
mod call;
mod isolation;
mod outage;
mod protocol;
mod secrets;
mod sign_in;
