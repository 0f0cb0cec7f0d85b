//! The page for people: passengers to search, sort, create, edit and delete, and three pictures.
//!
//! URLs: `/` for those whose `Accept` names `text/html` (others get the list of `index`), and `/assets/…`, and `/resources/{name}` for any resource.
//!
//! Invariants: plain files without a build step, all of them in the binary; the page has no way to the data but the
//! public API, and its content security policy lets it load nothing from elsewhere.

mod index;
pub mod routes;
