//! The routing table: URL templates with their methods and the access that each requires.

use std::collections::{BTreeSet, HashMap};

use warp::http::Method;

use crate::auth::scope::Access;

/// Templates that support the same methods.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// The templates.
    pub templates: &'static [&'static str],
    /// The methods, each with the required access; `GET` includes HEAD.
    pub methods: &'static [(&'static str, Access)],
}

/// The methods of a resource that anyone may read.
pub const PUBLIC: &[(&str, Access)] = &[("GET", Access::Public)];

impl Endpoint {
    /// The access that a method requires, if it is supported.
    pub fn access(&self, method: &str) -> Option<Access> {
        self.methods.iter().find(|(known, _)| *known == method).map(|(_, access)| *access)
    }

    /// The methods as `Allow` lists them.
    pub fn allow(&self) -> String {
        let names = self.methods.iter().map(|(method, _)| if *method == "GET" { "GET, HEAD" } else { method });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// The path segment at the template's placeholder, if the path matches; empty if there is no placeholder.
pub fn segment_at<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    match template.split_once('{') {
        None => (path == template).then_some(""),
        Some((prefix, rest)) => {
            let suffix = rest.split_once('}').map_or("", |(_, suffix)| suffix);
            let segment = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
            (!segment.is_empty() && !segment.contains('/')).then_some(segment)
        }
    }
}

/// The access that every route requires.
#[derive(Debug)]
pub struct AccessTable {
    /// Templates without a placeholder; they take precedence.
    fixed: HashMap<&'static str, &'static Endpoint>,
    /// Templates with a placeholder, in the order of their routes.
    with_placeholder: Vec<(&'static str, &'static Endpoint)>,
}

impl AccessTable {
    /// Builds the table.
    ///
    /// # Panics
    /// If a URL without a placeholder has two endpoints that differ: one could be served with the access of the other.
    pub fn new(endpoints: impl IntoIterator<Item = &'static Endpoint>) -> Self {
        let mut table = Self { fixed: HashMap::new(), with_placeholder: Vec::new() };
        for endpoint in endpoints {
            for template in endpoint.templates {
                if template.contains('{') {
                    table.with_placeholder.push((template, endpoint));
                } else {
                    let other = table.fixed.insert(template, endpoint);
                    assert!(
                        other.is_none_or(|other| other.methods == endpoint.methods),
                        "{template} has two endpoints"
                    );
                }
            }
        }
        table
    }

    /// The scopes that routes require, except `admin`.
    pub fn scopes(&self) -> Vec<String> {
        let endpoints = self.fixed.values().chain(self.with_placeholder.iter().map(|(_, endpoint)| endpoint));
        let asked = endpoints.flat_map(|endpoint| endpoint.methods).map(|(_, access)| access);
        let scopes = asked.filter(|access| matches!(access, Access::Scope(..))).map(Access::to_string);
        scopes.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The access that a method on a template requires.
    pub fn of(&self, method: &str, template: &str) -> Option<Access> {
        let with_placeholder = || {
            self.with_placeholder
                .iter()
                .find(|(known, endpoint)| *known == template && endpoint.access(method).is_some())
        };
        let endpoint = self.fixed.get(template).or_else(|| with_placeholder().map(|(_, endpoint)| endpoint))?;
        endpoint.access(method)
    }

    /// The template that handles a request, and the required access; `None` if no route handles it.
    pub fn find(&self, method: &Method, path: &str) -> Option<(&'static str, Access)> {
        let method = if method == Method::HEAD { Method::GET.as_str() } else { method.as_str() };
        if let Some((template, endpoint)) = self.fixed.get_key_value(path) {
            return endpoint.access(method).map(|access| (*template, access));
        }
        let mut fitting = self.with_placeholder.iter().filter(|(template, _)| segment_at(template, path).is_some());
        fitting.find_map(|(template, endpoint)| Some((*template, endpoint.access(method)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_takes_exactly_one_segment() {
        assert_eq!(segment_at("/v1/p/{uuid}", "/v1/p/abc"), Some("abc"));
        assert_eq!(segment_at("/v1/p/{uuid}", "/v1/p/"), None);
        assert_eq!(segment_at("/v1/p/{uuid}", "/v1/p/a/b"), None);
        assert_eq!(segment_at("/v1/p/{uuid}/q", "/v1/p/abc/q"), Some("abc"));
        for other in ["/v1/p/abc", "/v1/p//q", "/v1/p/q", "/v1/p/a/b/q", "/v1/p/abc/q/", "/v1/p/abcq"] {
            assert_eq!(segment_at("/v1/p/{uuid}/q", other), None, "{other}");
        }
        assert_eq!(segment_at("/v1/p", "/v1/p"), Some(""));
        assert_eq!(segment_at("/v1/p", "/v1/p/"), None);
    }
}
