//! Bulk transfer of readings: the statements and values of `COPY`, and the seed. `db::copy` runs them.

use super::csv;
use crate::csv::cells::Cells;
use crate::csv::notes::{Notes, UnknownColumns};
use crate::db::copy::{BinaryRows, Table, TableError};
use crate::resource::csv::Header;

/// The epoch of binary timestamps (PostgreSQL's source, `src/include/datatype/timestamp.h`).
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000; // 2000-01-01

/// The readings.
#[derive(Debug, Clone, Copy)]
pub struct Readings;

/// A week of generated readings; data/README.md describes how they were generated.
pub const SEED: &[u8] = include_bytes!("../../data/air_quality.csv");

impl Table for Readings {
    type Header = Header;

    fn table_name(self) -> &'static str {
        "air_quality"
    }

    fn copy_in(self) -> &'static str {
        "copy air_quality (measured_at, id_entity, so2, no2, co, o3, pm10, pm2_5) from stdin (format binary)"
    }

    /// Times are written as in responses: RFC 3339 in UTC, with microseconds only if needed.
    fn copy_out(self) -> &'static str {
        "copy (select to_char(measured_at at time zone 'UTC', \
         case when date_trunc('milliseconds', measured_at) = measured_at \
         then 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"' else 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"' end) as timestamp, \
         id_entity, so2, no2, co, o3, pm10, pm2_5 from air_quality order by id_entity, measured_at) \
         to stdout (format csv, header true)"
    }

    fn read_header(self, record: &Cells, unknown: UnknownColumns) -> Result<Header, TableError> {
        csv::header(record, unknown)
    }

    fn put(self, header: &mut Header, record: &Cells, rows: &mut BinaryRows) -> Result<(), TableError> {
        let Some(reading) = csv::reading(header, record)? else { return Ok(()) };
        rows.put(|row| {
            row.put(Some(&(reading.at.as_microsecond() - POSTGRES_EPOCH_MICROS).to_be_bytes()));
            row.put(Some(reading.entity.as_bytes()));
            for value in reading.values {
                row.put(value.map(f64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
            }
        });
        Ok(())
    }

    fn notes(header: &Header) -> &Notes {
        header.notes()
    }
}
