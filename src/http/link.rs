//! The header `Link` of a page: where the pages on either side are (RFC 8288).

use warp::http::header::{HeaderValue, LINK};
use warp::reply::Response;

use super::problem::{Code, Problem};

/// The longest URL of a page. nginx takes 8 KiB of request line, and 20 KiB of an answer's headers, in which two of them stand.
pub const URL_MAX_BYTES: usize = 8_000;

/// Tells where other pages are, each by its path, its query and its relation to this one.
///
/// # Errors
/// 414 when a URL would be too long to be followed: the query is percent-encoded anew in it, and the position may hold long texts.
pub fn linked(
    mut response: Response,
    path: &str,
    pages: impl IntoIterator<Item = (String, &'static str)>,
) -> Result<Response, Problem> {
    let mut links = Vec::new();
    for (query, relation) in pages {
        let length = path.len() + 1 + query.len();
        if length > URL_MAX_BYTES {
            return Err(Problem::new(
                Code::UriTooLong,
                format!(
                    "the URL of the {relation} page would have {length} bytes, percent-encoded and with its cursor, and at most {URL_MAX_BYTES} \
                     are taken; shorten the filters, or order by columns with shorter values"
                ),
            ));
        }
        links.push(format!("<{path}?{query}>; rel=\"{relation}\""));
    }
    if !links.is_empty() {
        let links = HeaderValue::from_str(&links.join(", ")).expect("a query is percent-encoded");
        response.headers_mut().insert(LINK, links);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_could_not_be_asked_for_is_refused() {
        let link = |bytes| linked(Response::default(), "/x", [("q".repeat(bytes), "next")]);
        let response = link(URL_MAX_BYTES - 3).expect("it is short enough");
        assert_eq!(response.headers()[LINK].len(), URL_MAX_BYTES + "<>; rel=\"next\"".len());
        assert!(link(URL_MAX_BYTES - 2).is_err());
    }
}
