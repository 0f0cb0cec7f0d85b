//! Many rows in one request: a JSON array, CSV, or newline-delimited JSON, stored through `COPY`, all or none.
//!
//! A long body is spooled to a file while it arrives (`http/spool.rs`) and read from there: `split` splits it into rows, `rows`
//! validates each and encodes it in `COPY`'s binary format, and full chunks are sent to PostgreSQL (`load`, `store`). The first
//! invalid row releases the connection; the rest is still read, so that the response lists the errors of every row.

pub mod bounds;
mod faults;
mod load;
pub(super) mod openapi;
pub mod routes;
mod rows;
mod split;
mod store;
