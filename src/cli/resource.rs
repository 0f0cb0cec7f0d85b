//! `pycrudapi resource`: creates, checks and shows descriptions of resources, without a database.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use encoding_rs::Encoding;

use super::output::{print_line, written};
use crate::config::ResourcesConfig;
use crate::csv::encoding;
use crate::log_output::LogOutput;
use crate::resource::definition::Resource;
use crate::resource::description::Fault;
use crate::resource::infer::{counted, infer};
use crate::resource::naming::resource_name;
use crate::resource::registry::{self, RESERVED_NAMES};
use crate::resource::schema;
use crate::resource::shorthand;
use crate::resource::sketch::{ColumnSketch, Sketch};

/// The exit status for invalid arguments.
const WRONG_ARGUMENTS: u8 = 2;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a description, with one column for each argument.
    ///
    /// Example: pycrudapi resource new vessels 'name:string:1..150' 'type:cargo|tanker' 'tonnage:number:0..:null'
    New {
        /// The name: the URL is /v1/NAME and the table NAME.
        name: String,
        /// A column: `name:type[:low..high][:null][:index]`.
        ///
        /// The type is boolean, integer, int16, int32, int64, number, decimal(precision,scale), string, date, date-time, uuid,
        /// or a|b|c for one of these texts. The range applies to numbers or to the length of texts; one bound may be omitted.
        #[arg(required = true)]
        columns: Vec<String>,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        resources: ResourcesConfig,
    },
    /// Create a description that fits a CSV file, so that import accepts all of its rows.
    Infer {
        /// The file, or - for standard input.
        file: PathBuf,
        /// The name of the resource; by default that of the file.
        #[arg(long)]
        name: Option<String>,
        /// Encoding of the file, such as windows-1252; by default its byte order mark's, or UTF-8.
        #[arg(long, value_parser = encoding::named)]
        encoding: Option<&'static Encoding>,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        resources: ResourcesConfig,
    },
    /// Print all errors of a description, with line and remedy.
    Check {
        /// The description.
        file: PathBuf,
    },
    /// Print the SQL statements that create the table of a resource.
    Sql {
        /// The resource.
        name: String,
        #[command(flatten)]
        resources: ResourcesConfig,
    },
    /// List the resources.
    List {
        #[command(flatten)]
        resources: ResourcesConfig,
    },
}

/// Output of a description.
#[derive(Debug, Args)]
pub struct Output {
    /// The file, or - for standard output.
    ///
    /// [default: NAME.toml in RESOURCES_DIR, or in the current directory]
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Overwrite an existing file.
    #[arg(long)]
    force: bool,
    /// Record each change of a row: who made it, when, and the previous values.
    #[arg(long)]
    history: bool,
}

/// Runs the chosen subcommand.
///
/// # Errors
/// A chain of causes that includes the remedy.
pub fn run(command: &Command, log: &LogOutput) -> anyhow::Result<ExitCode> {
    match command {
        Command::New { name, columns, output, resources } => match new(name, columns) {
            Ok(sketch) => output.write(sketch, resources),
            Err(faults) => {
                for fault in faults {
                    log.write_line(&format!("pycrudapi: {fault}"));
                }
                Ok(WRONG_ARGUMENTS.into())
            }
        },
        Command::Infer { file, name, encoding, output, resources } => {
            output.write(inferred(file, name.as_deref(), *encoding)?, resources)
        }
        Command::Check { file } => Ok(check(file)),
        Command::Sql { name, resources } => {
            let known = resources.load()?;
            let Some(resource) = known.iter().find(|resource| resource.name == name) else {
                let names: Vec<&str> = known.iter().map(|resource| resource.name).collect();
                bail!("unknown resource {name:?}; the resources are {}", names.join(", "));
            };
            let statements: String = schema::ddl(resource).iter().map(|statement| format!("{statement};\n")).collect();
            written(std::io::stdout().write_all(statements.as_bytes()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::List { resources } => {
            for resource in resources.load()? {
                print_line(&format!(
                    "{}\t{}\t{}",
                    resource.name,
                    counted(resource.fields().len() as u64, "column"),
                    resource.title
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Creates a description from arguments.
///
/// # Errors
/// All errors, each with its argument.
fn new(name: &str, arguments: &[String]) -> Result<Sketch, Vec<String>> {
    let mut faults: Vec<String> = taken(name).into_iter().collect();
    let mut columns = Vec::new();
    for argument in arguments {
        match shorthand::column(argument) {
            Ok(column) => columns.push((argument, column)),
            Err(found) => faults.extend(found.into_iter().map(|fault| format!("{argument:?}: {fault}"))),
        }
    }
    let sketch = Sketch {
        name: name.to_owned(),
        history: false,
        comments: vec![
            format!("{name}: defines the table, the API, CSV and the page."),
            "A column may also have description, unit, default, examples, pattern and csv (other headers for it)."
                .to_owned(),
        ],
        columns: columns
            .iter()
            .map(|(_, column)| ColumnSketch { comments: Vec::new(), column: column.clone() })
            .collect(),
    };
    // A column that could not be parsed would only cause further errors, so the others are checked without it.
    let (text, lines) = sketch.text();
    if let (false, Err(found)) = (columns.is_empty(), Resource::load(&text, no_file)) {
        for fault in found {
            let column = lines.iter().rposition(|line| *line <= fault.line);
            let argument = column.map_or(name, |column| columns[column].0);
            faults.push(format!("{argument:?}: {}", fault.message));
        }
    }
    if faults.is_empty() { Ok(sketch) } else { Err(faults) }
}

/// The error for a name that the service itself uses.
fn taken(name: &str) -> Option<String> {
    RESERVED_NAMES.contains(&name).then(|| format!("the name {name} is reserved by the service; choose another one"))
}

/// Loads a file: a sketch never refers to one.
fn no_file(name: &str) -> Result<Vec<u8>, String> {
    Err(format!("there is no file {name}"))
}

fn inferred(file: &Path, name: Option<&str>, encoding: Option<&'static Encoding>) -> anyhow::Result<Sketch> {
    let is_input = file.as_os_str() == "-";
    let name = match name {
        Some(name) => name.to_owned(),
        None => {
            let stem = file.file_stem().filter(|_| !is_input).map(|stem| stem.to_string_lossy());
            stem.and_then(|stem| resource_name(&stem))
                .context("the file's name has no letter for a resource name; use --name")?
        }
    };
    let (input, source): (Box<dyn Read>, String) = if is_input {
        (Box::new(std::io::stdin()), "standard input".to_owned())
    } else {
        let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        (Box::new(opened), file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned())
    };
    if let Some(fault) = taken(&name) {
        bail!("{fault} with --name");
    }
    // Column names are derived from the resource's name, so that is checked first.
    let faulty =
        |found: Vec<Fault>| anyhow!(found.into_iter().map(|fault| fault.message).collect::<Vec<_>>().join("; "));
    let empty = Sketch { name: name.clone(), columns: vec![ColumnSketch::of_text("any")], ..Sketch::default() };
    Resource::load(&empty.text().0, no_file).map_err(faulty)?;
    let sketch = infer(&name, &source, input, encoding)
        .with_context(|| format!("nothing was inferred from {}", file.display()))?;
    Resource::load(&sketch.text().0, no_file).map_err(faulty)?;
    Ok(sketch)
}

impl Output {
    fn write(&self, mut sketch: Sketch, resources: &ResourcesConfig) -> anyhow::Result<ExitCode> {
        sketch.history = self.history;
        let text = sketch.text().0;
        let path = match (&self.output, &resources.resources_dir) {
            (Some(path), _) if path.as_os_str() == "-" => {
                written(std::io::stdout().write_all(text.as_bytes()))?;
                return Ok(ExitCode::SUCCESS);
            }
            (Some(path), _) => path.clone(),
            (None, folder) => {
                let folder = folder.clone().unwrap_or_default();
                if !folder.as_os_str().is_empty() {
                    fs::create_dir_all(&folder)
                        .with_context(|| format!("cannot create the directory {}", folder.display()))?;
                }
                folder.join(format!("{}.toml", sketch.name))
            }
        };
        let mut options = OpenOptions::new();
        options.write(true);
        let opened =
            if self.force { options.create(true).truncate(true) } else { options.create_new(true) }.open(&path);
        let mut file = match opened {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{} exists; use --force to overwrite it, or --output for another file", path.display())
            }
            opened => opened.with_context(|| format!("cannot write {}", path.display()))?,
        };
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        print_line(&format!("{}: {}", path.display(), counted(sketch.columns.len() as u64, "column")));
        Ok(ExitCode::SUCCESS)
    }
}

fn check(file: &Path) -> ExitCode {
    match registry::load_file(file) {
        Ok(resource) if RESERVED_NAMES.contains(&resource.name) => {
            print_line(&format!("{}: {}", file.display(), taken(resource.name).unwrap_or_default()));
            ExitCode::FAILURE
        }
        Ok(resource) => {
            print_line(&format!("{}: {}, no fault", file.display(), counted(resource.fields().len() as u64, "column")));
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in faults {
                print_line(&format!("{}: {fault}", file.display()));
            }
            ExitCode::FAILURE
        }
    }
}
