//! Air quality: what the stations measured, delivered whole and kept in a cache.
//!
//! URLs: `/v1/air-quality`, and the URLs of the services it replaces (`/air_quality`, `/api/v1/measures/air`). Readings
//! come in by `pycrudapi import --resource air-quality`; over HTTP they are read only.
//!
//! Invariants: a stored reading satisfies every rule of `model`, which the table's constraints repeat. A cached answer
//! is labelled with the generation of the readings it was made of, and is delivered only while that is the current one;
//! how, and what happens when Redis misbehaves, is in `cache` and in docs/caching.md.

pub mod cache;
pub mod csv;
pub mod entry;
pub mod model;
pub mod openapi;
pub mod redis_cache;
pub mod render;
pub mod routes;
pub mod store;
pub mod transfer;
