//! Imports rows from a file, with a progress bar.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use encoding_rs::Encoding;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::print_line;
use crate::csv::encoding;
use crate::csv::notes::UnknownColumns;
use crate::db::conninfo::ConnInfo;
use crate::db::copy::{self, Imported, Input, Table};
use crate::db::migrate;
use crate::resource::definition::Resource;
use crate::resource::registry::Resources;

/// The source of the rows, and how it is read.
#[derive(Debug, Args)]
pub struct Source {
    /// The file, or - for standard input.
    pub file: PathBuf,
    /// Accept a file without rows; otherwise it is an error, because the output of a failed export looks the same.
    #[arg(long)]
    allow_empty: bool,
    /// Encoding of the file, such as windows-1252; by default its byte order mark's, or UTF-8.
    #[arg(long, value_parser = encoding::named)]
    encoding: Option<&'static Encoding>,
    /// Ignore columns that the resource does not have, and report them.
    #[arg(long)]
    ignore_unknown_columns: bool,
}

/// What can be transferred in bulk.
#[derive(Clone, Copy)]
pub enum Transferred {
    /// Rows of a described resource.
    Resource(&'static Resource),
    /// Air-quality readings.
    AirQuality,
}

/// The resource with this name.
///
/// # Errors
/// If there is none.
pub fn transferred(name: &str, resources: Resources) -> anyhow::Result<Transferred> {
    if name == "air-quality" {
        return Ok(Transferred::AirQuality);
    }
    match resources.iter().find(|resource| resource.name == name) {
        Some(resource) => Ok(Transferred::Resource(resource)),
        None => {
            let known: Vec<&str> = resources.iter().map(|resource| resource.name).collect();
            bail!("unknown resource {name:?}; the resources are {}, air-quality", known.join(", "))
        }
    }
}

/// Imports all rows of a file, or none.
///
/// # Errors
/// A chain of causes that includes the remedy.
pub async fn import(
    table: impl Table,
    from: &Source,
    conninfo: ConnInfo,
    resources: Resources,
    noun: &str,
) -> anyhow::Result<()> {
    let Source { file, allow_empty, encoding, ignore_unknown_columns } = from;
    let (text, length): (Box<dyn Read + Send>, Option<u64>) = if file.as_os_str() == "-" {
        (Box::new(std::io::stdin()), None)
    } else {
        let file_handle = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let length = file_handle.metadata().ok().map(|metadata| metadata.len());
        (Box::new(file_handle), length)
    };
    let (_, mut client) = migrate::prepare(&conninfo, &resources, || ())
        .await
        .context("cannot prepare the database; check DATABASE_URL")?;
    let bar = progress_bar(length);
    let unknown = if *ignore_unknown_columns { UnknownColumns::Ignored } else { UnknownColumns::Refused };
    let input = Input { text, encoding: *encoding, unknown };
    let imported = {
        let bar = bar.clone();
        copy::import(table, &mut client, input, *allow_empty, move |bytes| bar.set_position(bytes)).await
    };
    bar.finish_and_clear();
    let Imported { rows, notes } = imported.with_context(|| format!("nothing was imported from {}", file.display()))?;
    print_line(&format!("{rows} {noun} imported"));
    for sentence in notes {
        print_line(&sentence);
    }
    Ok(())
}

/// A progress bar on a terminal, otherwise a hidden one.
fn progress_bar(length: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match length {
        Some(length) => ProgressBar::new(length).with_style(
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left")
                .expect("the template is a constant"),
        ),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}").expect("the template is a constant"),
        ),
    }
}
