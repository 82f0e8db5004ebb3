//! The documentation pages of the error codes. Their URLs are the `type` of problems (RFC 9457).
//!
//! Each server serves the pages. A URL with the scheme and host of the request therefore works behind any proxy that forwards the
//! `Host` header. The pages need no token, because clients without a token receive errors, too.

use salvo::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use salvo::http::uri::Scheme;
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Writer as _, async_trait};

use super::api_error::ApiError;
use super::security::host;

/// The text: a section per code, with paragraphs and code between backticks.
const TEXT: &str = include_str!("../../docs/reference/errors.md");

/// The path of the index page. The page of each code is below it.
const PATH: &str = "/docs/errors";

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Returns the URL of the pages, to which a code is appended. `public` is the configured prefix. Without it, the URL has the request's
/// scheme and host; without a valid host, it is relative.
pub(super) fn base_url(req: &Request, public: Option<&str>) -> String {
    if let Some(public) = public {
        return format!("{}{PATH}/", public.trim_end_matches('/'));
    }
    let forwarded = req.headers().get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https");
    let scheme = if forwarded || *req.scheme() == Scheme::HTTPS { "https" } else { "http" };
    match host(req) {
        Some(host) => format!("{scheme}://{host}{PATH}/"),
        None => format!("{PATH}/"),
    }
}

/// Returns the codes that have a section.
fn codes() -> impl Iterator<Item = &'static str> {
    TEXT.split("\n## `").skip(1).filter_map(|section| Some(section.split_once("`\n")?.0))
}

/// Returns the paragraphs of a code's section.
fn section(code: &str) -> Option<&'static str> {
    let mut sections = TEXT.split("\n## `").skip(1).filter_map(|section| section.split_once("`\n"));
    sections.find(|(heading, _)| *heading == code).map(|(_, text)| text)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Renders a paragraph with code between backticks.
fn paragraph(text: &str) -> String {
    let escaped = escaped(text.trim());
    let parts = escaped
        .split('`')
        .enumerate()
        .map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() });
    format!("<p>{}</p>\n", parts.collect::<String>())
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"></head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// Serves the page of a code, or the index.
pub(super) struct ErrorPages;

#[async_trait]
impl Handler for ErrorPages {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        let html = match req.param::<&str>("code") {
            Some(code) => section(code).map(|text| {
                let paragraphs: String = text.split("\n\n").map(paragraph).collect();
                page(code, &(paragraphs + &format!("<p><a href=\"{PATH}\">All errors</a></p>\n")))
            }),
            None => {
                let links: String =
                    codes().map(|code| format!("<li><a href=\"{PATH}/{code}\">{code}</a></li>\n")).collect();
                Some(page("Errors", &format!("<ul>\n{links}</ul>\n")))
            }
        };
        let Some(html) = html else {
            return ApiError::NotFound.write(req, depot, res).await;
        };
        res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
        res.body(html);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Collects the codes from the source text of the table, where each code follows its status.
    fn codes_of_table() -> BTreeSet<String> {
        let table = include_str!("problem.rs").split("StatusCode::").skip(1);
        let beside = table.filter_map(|rest| rest.split_once(", \"")).filter_map(|(status, rest)| {
            let is_status = status.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            is_status.then(|| rest.split('"').next().unwrap_or_default().to_owned())
        });
        beside.collect()
    }

    #[test]
    fn every_code_has_a_section() {
        let mut all = codes_of_table();
        assert!(all.contains("internal") && all.contains("not_found") && all.len() > 15, "{all:?}");
        all.extend(super::super::problem::examples().map(|(code, _)| code.to_owned()));
        assert!(all.contains("token_expired"), "{all:?}");
        for code in all {
            let text = section(&code).unwrap_or_else(|| panic!("docs/reference/errors.md has no section `{code}`"));
            let status = text.trim_start().get(..4).unwrap_or_default();
            assert!(status.ends_with('.') && text.trim().split("\n\n").count() >= 2, "{code}: {text}");
        }
        let named: Vec<_> = codes().collect();
        assert_eq!(named.len(), named.iter().collect::<BTreeSet<_>>().len(), "each once");
    }

    #[test]
    fn a_paragraph_is_escaped_and_code_is_marked_up() {
        assert_eq!(paragraph("a `<b>` & c\n"), "<p>a <code>&lt;b&gt;</code> &amp; c</p>\n");
    }
}
