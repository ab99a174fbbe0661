//! Serves what everybody may read over plain HTTP: the probes, the description of the HTTP routes, and the documents that say
//! what this server is as a protected resource. None of it needs a token, and none of it is recorded.

use std::sync::Arc;

use http_body_util::Full;
use serde_json::json;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderValue, Method, Response, StatusCode, header};

use super::health::{Part, Readiness};
use super::operations::{LIVEZ, OPENAPI, READYZ};
use super::plain_http::{self, BodyAllowed};
use super::refusal::{HttpFault, Refusal};
use super::resource_metadata::ResourceMetadata;

/// Answers requests for what everybody may read.
pub(super) struct Public {
    pub(super) readiness: Arc<Readiness>,
    /// The description of the HTTP routes, as JSON.
    pub(super) openapi: Bytes,
    /// The metadata of each audience of tokens; empty if the server asks for no tokens.
    pub(super) resource_metadata: Vec<ResourceMetadata>,
}

/// Something that everybody may read.
enum Resource {
    Liveness,
    Readiness,
    Document(Bytes),
}

impl Public {
    /// # Errors
    /// When nothing is at the path, or the method does not read.
    pub(super) async fn answer(&self, method: &Method, path: &str) -> Result<Response<Body>, Refusal> {
        let nothing = || Refusal::new(Code::NotFound, "nothing is served at this path");
        let resource = self.resource(path).ok_or_else(nothing)?;
        if ![Method::GET, Method::HEAD].contains(method) {
            return Err(Refusal::new(Code::Unimplemented, "this path is only read")
                .with_http_fault(HttpFault::Method { allowed: "GET, HEAD".into() }));
        }
        let (status, json) = match resource {
            Resource::Liveness => (StatusCode::OK, json!({ "status": "live" }).to_string().into()),
            Resource::Readiness => told(&self.readiness.lacking().await),
            Resource::Document(json) => (StatusCode::OK, json),
        };
        let length = json.len();
        let mut response = Response::new(match BodyAllowed::by(method) {
            BodyAllowed::Yes => Body::new(Full::from(json)),
            BodyAllowed::No => Body::empty(),
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        plain_http::harden(headers);
        Ok(response)
    }

    fn resource(&self, path: &str) -> Option<Resource> {
        match path {
            LIVEZ => Some(Resource::Liveness),
            READYZ => Some(Resource::Readiness),
            OPENAPI => Some(Resource::Document(self.openapi.clone())),
            _ => {
                let metadata = self.resource_metadata.iter().find(|metadata| metadata.path() == path)?;
                Some(Resource::Document(metadata.json().clone()))
            }
        }
    }
}

/// Returns status and body of the answer about readiness. The words are fixed, so they tell nothing of a backend.
fn told(lacking: &[Part]) -> (StatusCode, Bytes) {
    let (status, word) =
        if lacking.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let reasons: Vec<&str> = lacking.iter().map(|part| part.word()).collect();
    (status, json!({ "status": word, "reasons": reasons }).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_told_in_fixed_words() {
        let rows: [(&str, &[Part], u16, &str); 3] = [
            ("ready", &[], 200, r#"{"reasons":[],"status":"ready"}"#),
            ("one part", &[Part::VectorStore], 503, r#"{"reasons":["vector store"],"status":"not ready"}"#),
            (
                "two parts",
                &[Part::Authorizer, Part::Audit],
                503,
                r#"{"reasons":["authorizer","audit"],"status":"not ready"}"#,
            ),
        ];
        for (row, lacking, status, json) in rows {
            let told = told(lacking);
            assert_eq!((told.0.as_u16(), &told.1[..]), (status, json.as_bytes()), "{row}");
        }
    }
}
