//! Many passengers in one request: a JSON array, CSV, or one JSON object per line, through `COPY`, all or none.
//!
//! The body is never in memory whole: `split` cuts what has arrived into rows, `rows` judges each and turns it into
//! `COPY`'s binary form, and full pieces go to PostgreSQL (`store`). The first bad row gives the connection back; the rest
//! is read to its end all the same, so that the answer names every bad row.

mod faults;
pub(super) mod openapi;
pub mod routes;
mod rows;
mod split;
mod store;
