//! The store seen from outside, against a real database file.

mod access_tests;
mod api_keys;
mod audit;
mod bulk;
mod changes;
mod credentials;
mod damage;
mod directory;
mod grants;
mod health;
mod isolation;
mod keys;
mod leases;
mod offers;
mod opening;
mod postgres;
mod quota_use;
mod replicas;
mod review;
mod support;
mod tenants;
mod tools;
mod upstreams;
mod usage;
