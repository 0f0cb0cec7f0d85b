//! The web interface: passengers to search, sort, create, edit and delete, and three charts.
//!
//! URLs: `/` for clients whose `Accept` lists `text/html` (others get the list of `index`), `/assets/…`, and
//! `/resources/{name}` for any resource.
//!
//! Invariants: plain files without a build step, embedded in the binary; the pages access data only through the public API, and
//! their content security policy prevents loading anything from elsewhere.

mod index;
pub mod routes;
