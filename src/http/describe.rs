//! Builds the OpenAPI document; shared by the `openapi` module of each resource.
//!
//! An operation is described once and added at each of its URL templates, the canonical one first. Problems are referenced by
//! their [`Code`]; those that any request may receive, including nginx's, are added here to every operation.

use std::fmt::Display;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, OpenIdConnect, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ComponentsBuilder, Content, HttpMethod, Paths, Ref, RefOr, Required, Schema};

use super::catalogue::{self, Kind};
use super::endpoint::AccessTable;
use super::problem::Code;
use super::schema::{integer, one_of};
use crate::auth::issuer::source;
use crate::auth::scope::Access;
use crate::auth::sign_in::SignIn;

/// Appended to the description of every request body.
const COMPRESSED: &str = "It may be sent with `Content-Encoding: gzip`.";
/// The header with a position in the primary's WAL ([`super::consistency`]).
const DATABASE_LSN: &str = "Database-LSN";
/// The media type of every error.
pub const PROBLEM: &str = "application/problem+json";

/// The names of the security schemes.
const BEARER: &str = "bearer";
const SIGN_IN: &str = "signIn";

/// Paths and components being built.
pub struct Document {
    access: AccessTable,
    /// The URL of the identity provider's discovery document, if pages can sign in there.
    discovery: Option<String>,
    paths: PathsBuilder,
    components: ComponentsBuilder,
}

impl Document {
    /// An empty document for routes with these access requirements, and for this sign-in configuration.
    pub fn new(access: AccessTable, sign_in: Option<&SignIn>) -> Self {
        let discovery = sign_in.map(|sign_in| source::discovery(&sign_in.issuer));
        Self { access, discovery, paths: PathsBuilder::default(), components: ComponentsBuilder::default() }
    }

    /// Adds a type that operations reference by [`reference`].
    pub fn schema<T: ToSchema>(&mut self) {
        let mut used = Vec::new();
        T::schemas(&mut used);
        for (name, schema) in used {
            self.named(&name, schema);
        }
        self.named(&T::name(), T::schema());
    }

    /// Adds a schema that is not derived from a Rust type.
    pub fn named(&mut self, name: &str, schema: RefOr<Schema>) {
        let components = std::mem::take(&mut self.components);
        self.components = components.schema(name, schema);
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers name a method, and have no use for it afterwards")]
    /// Adds an operation at each of its templates; the first is the canonical one.
    pub fn operation(&mut self, method: HttpMethod, templates: &[&str], operation: &Operation) {
        for (index, template) in templates.iter().enumerate() {
            let access = self.access.of(method_name(&method), template).unwrap_or(Access::Public);
            let mut built = operation.build(method != HttpMethod::Get, access, self.discovery.is_some());
            if let (Some(canonical), true) = (templates.first(), index > 0) {
                let id = built.operation_id.unwrap_or_default();
                built.operation_id = Some(format!("{id}At{}", camel(template)));
                built.description = Some(format!("The same operation as the one at `{canonical}`."));
            }
            let item = PathItem::new(method.clone(), built);
            let paths = std::mem::take(&mut self.paths);
            self.paths = paths.path(*template, item);
        }
    }

    /// The finished document, with one response per kind of problem.
    pub fn finish(self) -> (Paths, Components) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token created by `pycrudapi token create`, or an access token of the identity provider. Required \
                 with AUTH=on.",
            ))
            .build();
        let mut components = self.components.security_scheme(BEARER, SecurityScheme::Http(bearer));
        if let Some(discovery) = self.discovery {
            let scheme = OpenIdConnect::with_description(
                discovery.as_str(),
                "An access token of the identity provider, obtained by signing in.",
            );
            components = components.security_scheme(SIGN_IN, SecurityScheme::OpenIdConnect(scheme));
        }
        for kind in catalogue::all() {
            components = components.response(kind.code, problem_response(&[&kind]));
        }
        (self.paths.build(), components.build())
    }
}

fn method_name(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Delete => "DELETE",
        _ => "",
    }
}

/// `/v1/passengers/{uuid}` as `V1PassengersUuid`.
fn camel(template: &str) -> String {
    let words = template.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

/// One operation.
pub struct Operation {
    tag: &'static str,
    id: &'static str,
    summary: &'static str,
    description: Option<&'static str>,
    parameters: Vec<Parameter>,
    body: Option<RequestBody>,
    responses: Vec<(u16, Response)>,
    problems: Vec<Code>,
}

impl Operation {
    /// An operation with its tag, identifier and summary.
    pub fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            id,
            summary,
            description: None,
            parameters: Vec::new(),
            body: None,
            responses: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds a description in Markdown.
    pub fn description(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// Adds parameters.
    pub fn with(mut self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Adds a request body in one of several media types; each may be compressed.
    pub fn request_body(
        mut self,
        required: bool,
        description: &str,
        contents: impl IntoIterator<Item = (&'static str, Content)>,
    ) -> Self {
        let required = if required { Required::True } else { Required::False };
        let mut body =
            RequestBodyBuilder::new().description(Some(format!("{description} {COMPRESSED}"))).required(Some(required));
        for (media_type, content) in contents {
            body = body.content(media_type, content);
        }
        self.body = Some(body.build());
        self
    }

    /// Adds a response with a status, in one of several media types, or without a body.
    pub fn response(
        mut self,
        status: u16,
        description: &str,
        contents: impl IntoIterator<Item = (&'static str, Content)>,
    ) -> Self {
        let mut response = ResponseBuilder::new().description(description);
        for (media_type, content) in contents {
            response = response.content(media_type, content);
        }
        self.responses.push((status, response.build()));
        self
    }

    /// Adds a header to the last response.
    pub fn header(mut self, name: &'static str, schema: impl Into<RefOr<Schema>>, description: &str) -> Self {
        let header = HeaderBuilder::new().schema(schema).description(Some(description)).build();
        let (_, response) = self.responses.last_mut().expect("a header belongs to a response");
        response.headers.insert(name.to_owned(), header);
        self
    }

    /// Adds problems in addition to those that any request may receive.
    pub fn problems(mut self, problems: impl IntoIterator<Item = Code>) -> Self {
        self.problems.extend(problems);
        self
    }

    /// Declares that the operation may read from a replica and accepts the position that it must include.
    pub fn reads_replica(self) -> Self {
        let meaning = "if lists are read from a replica, the value from the response to a change that the response must \
                       include; without a replica it is ignored";
        // Without its pattern: a value that is ignored may be anything.
        let value = RefOr::T(ObjectBuilder::new().schema_type(Type::String).into());
        self.with([header(DATABASE_LSN, value, meaning, "1:0/3000060")]).problems([Code::InvalidHeader])
    }

    fn build(&self, writes: bool, access: Access, signs_in: bool) -> utoipa::openapi::path::Operation {
        let mut operation = OperationBuilder::new()
            .tag(self.tag)
            .operation_id(Some(self.id))
            .summary(Some(self.summary))
            .description(self.description)
            .request_body(self.body.clone());
        if access != Access::Public {
            // Credentials are required with AUTH=on only, so an empty requirement is an alternative.
            let schemes = std::iter::once(BEARER).chain(signs_in.then_some(SIGN_IN));
            let required = schemes.map(|scheme| SecurityRequirement::new(scheme, [access.to_string()]));
            operation = operation.securities(Some(required.chain([SecurityRequirement::default()])));
        }
        for parameter in &self.parameters {
            operation = operation.parameter(parameter.clone());
        }
        for (status, response) in &self.responses {
            let mut response = response.clone();
            if writes {
                let meaning = "present if lists are read from a replica: a list requested with it includes this change";
                let header = HeaderBuilder::new().schema(wal_position()).description(Some(meaning)).build();
                response.headers.insert(DATABASE_LSN.to_owned(), header);
            }
            operation = operation.response(status.to_string(), response);
        }
        let kinds: Vec<Kind> = catalogue::all()
            .filter(|kind| {
                kind.anywhere
                    || (kind.with_writes && writes)
                    || (kind.with_access && access != Access::Public)
                    || (kind.with_bodies && self.body.is_some())
                    || self.fails_with(kind.code)
            })
            .collect();
        let mut statuses: Vec<u16> = kinds.iter().map(|kind| kind.status).collect();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let same: Vec<&Kind> = kinds.iter().filter(|kind| kind.status == status).collect();
            let response = match same.as_slice() {
                [kind] => Ref::from_response_name(kind.code).into(),
                several => RefOr::T(problem_response(several)),
            };
            operation = operation.response(status.to_string(), response);
        }
        operation.build()
    }

    fn fails_with(&self, code: &str) -> bool {
        self.problems.iter().any(|problem| problem.parts().1 == code)
    }
}

/// A value of [`DATABASE_LSN`] in a response.
fn wal_position() -> RefOr<Schema> {
    let position = "^([0-9]{1,9}:[0-9A-F]{1,8}/[0-9A-F]{1,8}|primary)$";
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).pattern(Some(position)).into())
}

/// The response for problems that share a status, with an example of each.
fn problem_response(kinds: &[&Kind]) -> Response {
    let description: Vec<String> =
        kinds.iter().map(|kind| format!("[`{}`](/docs/problems/{}): {}", kind.code, kind.code, kind.cause)).collect();
    let examples = kinds.iter().map(|kind| {
        let example = utoipa::openapi::example::ExampleBuilder::new().summary(kind.title).value(Some(kind.example()));
        (kind.code, example.build())
    });
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).examples_from_iter(examples);
    let mut response = ResponseBuilder::new().description(description.join("\n\n")).content(PROBLEM, content.build());
    if kinds.iter().any(|kind| kind.retry_after) {
        let seconds = HeaderBuilder::new().schema(integer(1, i64::from(i32::MAX)));
        response = response
            .header("Retry-After", seconds.description(Some("seconds to wait before the next attempt")).build());
    }
    if kinds.iter().any(|kind| kind.code == Code::UnsupportedMediaType.parts().1) {
        let coding = HeaderBuilder::new().schema(one_of(["gzip"]));
        let when = "the supported coding, if that of the body is not supported";
        response = response.header("Accept-Encoding", coding.description(Some(when)).build());
    }
    response.build()
}

/// A body's content, with an example.
pub fn content(schema: impl Into<RefOr<Schema>>, example: impl Into<Value>) -> Content {
    ContentBuilder::new().schema(Some(schema)).example(Some(example.into())).build()
}

/// An optional parameter of the query string.
pub fn query(name: &str, schema: RefOr<Schema>, description: &str, example: impl Display) -> Parameter {
    optional(name, ParameterIn::Query, schema, description, example)
}

/// An optional header of the request.
pub fn header(name: &str, schema: RefOr<Schema>, description: &str, example: impl Display) -> Parameter {
    optional(name, ParameterIn::Header, schema, description, example)
}

/// A path parameter.
pub fn path(name: &str, schema: RefOr<Schema>, description: &str, example: impl Display) -> Parameter {
    let example = Some(Value::from(example.to_string()));
    parameter(name, ParameterIn::Path, schema).description(Some(description)).example(example).build()
}

/// The example is part of the description, because Swagger UI would send an `example` with every request that is tried out.
fn optional(
    name: &str,
    place: ParameterIn,
    schema: RefOr<Schema>,
    description: &str,
    example: impl Display,
) -> Parameter {
    let text = format!("{description}; example: `{example}`");
    parameter(name, place, schema).required(Required::False).description(Some(text)).build()
}

fn parameter(name: &str, place: ParameterIn, schema: RefOr<Schema>) -> ParameterBuilder {
    ParameterBuilder::new().name(name).parameter_in(place).schema(Some(schema)).required(Required::True)
}
