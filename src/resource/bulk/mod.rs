//! Many rows in one request: a JSON array, CSV, or one JSON object per line, through `COPY`, all or none.
//!
//! A long body is kept in a file while it arrives (`http/spool.rs`) and read from there: `split` cuts it into rows, `rows`
//! judges each and turns it into `COPY`'s binary form, and full chunks go to PostgreSQL (`load`, `store`). The first bad row
//! gives the connection back; the rest is read to its end all the same, so that the answer names every bad row.

pub mod bounds;
mod faults;
mod load;
pub(super) mod openapi;
pub mod routes;
mod rows;
mod split;
mod store;
