//! Air quality: the measurements of stations, returned as a whole and cached.
//!
//! URLs: `/v1/air-quality`, and the URLs of the services it replaces (`/air_quality`, `/api/v1/measures/air`). Readings
//! are loaded by `pycrudapi import --resource air-quality`; over HTTP they are read-only.
//!
//! Invariants: a stored reading satisfies every rule of `model`, and the table's constraints repeat those rules. A cached
//! response is labelled with the generation of the readings from which it was built, and is served only while that is the
//! current one; see `cache` and docs/caching.md for how, and for failures of Redis.

pub mod cache;
pub mod cached_response;
pub mod csv;
pub mod model;
pub mod openapi;
pub mod redis_cache;
pub mod render;
pub mod routes;
pub mod store;
pub mod transfer;
