//! The product seen from outside: a whole server on a free port, real signed tokens, real upstreams, real clients.

#![expect(clippy::indexing_slicing, reason = "where a test indexes, a missing value fails it")]

mod support;

mod account_consent;
mod accounts;
mod api_keys;
mod audit;
mod bad_tokens;
mod bridge;
mod browser;
mod bytes;
mod call;
mod cancelled;
mod clients;
mod conformance;
mod connect;
mod connect_attacks;
mod credentials;
mod database_away;
mod dev;
mod dialogue;
mod egress;
mod entra;
mod features;
mod front_session;
mod fronts;
mod graph_directory;
mod isolation;
mod keys;
mod limits;
mod listen;
mod matrix;
mod metrics;
mod oauth;
mod old_sse;
mod openapi;
mod outage;
mod policy;
mod probes;
mod protocol;
mod provider;
mod replicas;
mod revocations;
mod running;
mod scim;
mod secrets;
mod session;
mod shared_names;
mod sign_in;
mod skills;
mod spellings;
mod subscriptions;
mod taken_up;
mod tasks;
mod token_exchange;
