//! The registry of resources: the built-in ones, and those of a directory.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio_postgres::Client;

use super::column::Column;
use super::definition::{Resource, camel};
use super::description::Fault;
use super::history;
use super::kind::Kind;
use super::schema::{self, Table};
use crate::db::migrate::{Tables, TablesError};

/// Built-in descriptions by name.
const BUILT_IN: &[(&str, &str)] = &[("passengers", include_str!("../../resources/passengers.toml"))];

/// Built-in seed files.
const SEEDS: &[(&str, &[u8])] = &[("passengers.csv", include_bytes!("../../data/passengers.csv"))];

/// Names in use below `/v1/`, and names of the service's other tables.
pub const RESERVED_NAMES: &[&str] = &[
    "admin",
    "air-quality",
    "air-quality-generation",
    "api-tokens",
    "api-tokens-generation",
    "idempotency-keys",
    "maintenance-runs",
    "principal",
    "pycrudapi-restoring",
    "refinery-schema-history",
    "seeds",
    "steps",
    "tokens",
];

/// The other schemas of the OpenAPI document.
pub const RESERVED_SCHEMAS: &[&str] = &[
    "FieldError",
    "NewToken",
    "ParameterError",
    "Principal",
    "Problem",
    "ProblemErrors",
    "Readiness",
    "ReadinessChecks",
    "ReplicaReadiness",
    "RowError",
    "SignIn",
    "StatusSummary",
    "Step",
    "StepDuration",
    "Token",
];

/// All resources served, in the order of their routes.
pub type Resources = &'static [&'static Resource];

impl Tables for Resources {
    fn objects(&self) -> Vec<String> {
        let of = |table: &str| {
            let others = [format!("{table}_version_seq"), format!("{table}_draw_version")];
            [table.to_owned(), history::sql::name(table), history::sql::since(table)].into_iter().chain(others)
        };
        self.iter().flat_map(|resource| of(resource.table)).collect()
    }

    fn update<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<usize, TablesError>> {
        async move {
            let mut count = 0;
            for resource in *self {
                let changes = schema::update(client, resource).await?;
                for change in &changes {
                    tracing::info!(
                        resource = resource.name,
                        change = change.what,
                        "changed a table to match its description"
                    );
                }
                count += changes.len();
            }
            Ok(count)
        }
        .boxed()
    }

    fn missing<'a>(&'a self, client: &'a Client) -> BoxFuture<'a, Result<Vec<String>, tokio_postgres::Error>> {
        async move {
            let mut missing = Vec::new();
            for resource in *self {
                let table = Table::read(client, resource).await?;
                let differences = schema::differences(resource, table.as_ref());
                missing.extend(
                    differences.into_iter().map(|difference| format!("{}: {}", resource.name, difference.what)),
                );
            }
            Ok(missing)
        }
        .boxed()
    }
}

/// Why the resources cannot be served.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// A description is invalid.
    #[error("{file}:\n{}", lines(.faults))]
    Description {
        /// The file.
        file: String,
        /// Its errors.
        faults: Vec<Fault>,
    },
    /// The directory cannot be read.
    #[error("cannot read the folder {} of RESOURCES_DIR", .folder.display())]
    Folder {
        /// The directory.
        folder: PathBuf,
        /// Why.
        #[source]
        reason: std::io::Error,
    },
    /// A resource of this name does not exist.
    #[error("RESOURCES: unknown resource {name}; the resources are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names of the existing resources.
        known: String,
    },
    /// Two resources would have the same URLs, the same table or the same schemas.
    #[error("{file}: {what} is taken; choose another one")]
    InUse {
        /// The file.
        file: String,
        /// The name, the URL or the schema.
        what: String,
    },
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n")
}

/// Loads the built-in resources and those of a directory, or the chosen ones of them. A file in the directory with the name of
/// a built-in resource replaces it.
///
/// # Errors
/// [`RegistryError`].
pub fn load(folder: Option<&Path>, chosen: Option<&[String]>) -> Result<Resources, RegistryError> {
    let mut found: Vec<(String, &'static Resource)> = Vec::new();
    for (name, text) in BUILT_IN {
        let file = format!("resources/{name}.toml");
        let resource =
            Resource::load(text, seed).map_err(|faults| RegistryError::Description { file: file.clone(), faults })?;
        found.push((file, resource));
    }
    let mut names = BTreeSet::new();
    for path in folder.map(files).transpose()?.into_iter().flatten() {
        let file = path.display().to_string();
        let resource = load_file(&path).map_err(|faults| RegistryError::Description { file: file.clone(), faults })?;
        if !names.insert(resource.name) {
            return Err(RegistryError::InUse { file, what: format!("the name {}", resource.name) });
        }
        match found.iter_mut().find(|(_, known)| known.name == resource.name) {
            Some(known) => *known = (file, resource),
            None => found.push((file, resource)),
        }
    }
    let mut urls: Vec<&str> = Vec::new();
    let mut schemas: Vec<SchemaName> = Vec::new();
    for (file, resource) in &found {
        let in_use = |what| Err(RegistryError::InUse { file: file.clone(), what });
        if RESERVED_NAMES.contains(&resource.name) {
            return in_use(format!("the name {}", resource.name));
        }
        // The name must not be that of another resource's history tables.
        let others = found.iter().filter(|(_, other)| other.sql.history.is_some());
        let mut tables =
            others.flat_map(|(_, other)| [history::sql::name(other.table), history::sql::since(other.table)]);
        if tables.any(|table| table == resource.table) {
            return in_use(format!("the name {}", resource.name));
        }
        for url in resource.short_urls() {
            let prefix = url.split('{').next().unwrap_or(url);
            if urls.contains(&prefix) || RESERVED_URLS.iter().any(|taken| prefix.trim_end_matches('/') == *taken) {
                return in_use(format!("the URL {url}"));
            }
            urls.push(prefix);
        }
        for schema in SchemaName::all(resource) {
            let mut others = schemas.iter().filter(|other| other.name == schema.name);
            let is_taken = others.any(|other| schema.values.is_none() || other.values != schema.values);
            if is_taken || RESERVED_SCHEMAS.contains(&schema.name.as_str()) {
                let SchemaName { name, setting, .. } = schema;
                return in_use(format!("the schema {name} of the OpenAPI document ({setting})"));
            }
            schemas.push(schema);
        }
    }
    let known = found.iter().map(|(_, resource)| *resource).collect::<Vec<_>>();
    let Some(chosen) = chosen else { return Ok(known.leak()) };
    let by_name = |name: &String| {
        known.iter().find(|resource| resource.name == name.trim()).copied().ok_or_else(|| RegistryError::Unknown {
            name: name.clone(),
            known: known.iter().map(|resource| resource.name).collect::<Vec<_>>().join(", "),
        })
    };
    let mut served: Vec<&'static Resource> = Vec::new();
    for name in chosen {
        let resource = by_name(name)?;
        if !served.iter().any(|other| other.name == resource.name) {
            served.push(resource);
        }
    }
    Ok(served.leak())
}

/// The name of a schema in the OpenAPI document.
struct SchemaName {
    name: String,
    /// What it is derived from.
    setting: String,
    /// The values of an enumeration; two resources may have the same one.
    values: Option<&'static [String]>,
}

impl SchemaName {
    /// The schemas of a resource.
    fn all(resource: &'static Resource) -> Vec<Self> {
        let row = |suffix| Self {
            name: format!("{}{suffix}", camel(resource.singular)),
            setting: format!("singular = {:?}", resource.singular),
            values: None,
        };
        let of_column = |column: &'static Column| match (&column.kind, column.docs.schema) {
            (Kind::Enum(texts), Some(name)) => {
                Some(Self { name: name.to_owned(), setting: format!("schema = {name:?}"), values: Some(texts) })
            }
            _ => None,
        };
        ["", "Details", "Change"].map(row).into_iter().chain(resource.fields().iter().filter_map(of_column)).collect()
    }
}

/// First segments of URLs used by other parts of the service.
pub const RESERVED_URLS: &[&str] = &[
    "/v1",
    "/api",
    "/air_quality",
    "/assets",
    "/docs",
    "/hello",
    "/helloworld",
    "/livez",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/resources",
    "/zero",
];

/// A built-in seed file.
pub fn seed(name: &str) -> Result<Vec<u8>, String> {
    let seed = SEEDS.iter().find(|(known, _)| *known == name);
    seed.map(|(_, bytes)| bytes.to_vec()).ok_or_else(|| format!("there is no file {name}"))
}

/// Loads a description file; its seed file is in the same directory, or built in.
///
/// # Errors
/// That it cannot be read, or all its errors.
pub fn load_file(path: &Path) -> Result<&'static Resource, Vec<Fault>> {
    let unreadable = |path: &Path, error: std::io::Error| match error.kind() {
        ErrorKind::InvalidData => "the file is not UTF-8; save it as UTF-8".to_owned(),
        _ => format!("cannot read {}: {error}", path.display()),
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| vec![Fault { line: 1, message: unreadable(path, error) }])?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Resource::load(&text, |name| {
        let path = folder.join(name);
        std::fs::read(&path).or_else(|error| seed(name).map_err(|_| unreadable(&path, error)))
    })
}

/// The description files in a directory, ordered by name; hidden files belong to editors or the system.
fn files(folder: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let unreadable = |reason| RegistryError::Folder { folder: folder.to_owned(), reason };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The resource `passengers`, for tests of the engine.
#[cfg(test)]
pub fn passengers() -> &'static Resource {
    use std::sync::OnceLock;
    static PASSENGERS: OnceLock<Resources> = OnceLock::new();
    PASSENGERS.get_or_init(|| load(None, None).expect("the built-in descriptions are right"))[0]
}
