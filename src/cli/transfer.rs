//! Rows into a table from a file, with a bar that shows how far it is.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use encoding_rs::Encoding;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::say;
use crate::csv::encoding;
use crate::csv::notes::UnknownColumns;
use crate::db::conninfo::ConnInfo;
use crate::db::copy::{self, Imported, Input, Table};
use crate::db::migrate;
use crate::resource::definition::Resource;
use crate::resource::registry::Resources;

/// Where rows come from, and how they are read.
#[derive(Debug, Args)]
pub struct Source {
    /// The file, or - for standard input.
    pub file: PathBuf,
    /// Take a file without rows for what it is; otherwise it is an error, because an export that failed looks so.
    #[arg(long)]
    allow_empty: bool,
    /// The encoding of the file, such as windows-1252; without, it is UTF-8, or what its byte order mark says.
    #[arg(long, value_parser = encoding::named)]
    encoding: Option<&'static Encoding>,
    /// Leave out columns that the resource does not have, and say which.
    #[arg(long)]
    ignore_unknown_columns: bool,
}

/// What can be moved in bulk.
#[derive(Clone, Copy)]
pub enum Transferred {
    /// Rows of a description.
    Resource(&'static Resource),
    /// Readings.
    AirQuality,
}

/// The resource of this name.
///
/// # Errors
/// When there is none.
pub fn transferred(name: &str, resources: Resources) -> anyhow::Result<Transferred> {
    if name == "air-quality" {
        return Ok(Transferred::AirQuality);
    }
    match resources.iter().find(|resource| resource.name == name) {
        Some(resource) => Ok(Transferred::Resource(resource)),
        None => {
            let known: Vec<&str> = resources.iter().map(|resource| resource.name).collect();
            bail!("there is no resource {name:?}; the resources are {}, air-quality", known.join(", "))
        }
    }
}

/// Loads a file: all of its rows, or none.
///
/// # Errors
/// A chain of causes that ends in what to do.
pub async fn import(
    table: impl Table,
    from: &Source,
    conninfo: ConnInfo,
    resources: Resources,
    rows_are: &str,
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
    say(&format!("{rows} {rows_are} imported"));
    for sentence in notes {
        say(&sentence);
    }
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
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
