//! A client of HTTP/1 that sends what a test says, byte for byte, and reads the whole answer.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request. Host, length and the end of the connection are added to its headers, unless a test names its own.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    verb: String,
    path: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    /// The headers that are not added.
    left_out: Vec<&'static str>,
    body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(verb: &str, path: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            path: path.to_owned(),
            version: "HTTP/1.1",
            headers: Vec::new(),
            left_out: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Returns a `POST` of JSON.
    pub(crate) fn json(path: &str, body: &Value) -> Self {
        Self::new("POST", path).with("content-type", "application/json").body(body.to_string())
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Takes a header away, also one that would be added.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self.left_out.push(name);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn verb(mut self, verb: &str) -> Self {
        verb.clone_into(&mut self.verb);
        self
    }

    pub(crate) fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub(crate) fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.with("authorization", format!("Bearer {token}"))
    }

    /// Returns the bytes of the request to a server at this address.
    pub(crate) fn bytes(&self, address: &str) -> Vec<u8> {
        let is_needed = |name: &str| {
            !self.left_out.contains(&name) && !self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
        };
        let mut head = format!("{} {} {}\r\n", self.verb, self.path, self.version);
        let added = [
            ("host", address.to_owned()),
            ("connection", "close".to_owned()),
            ("content-length", self.body.len().to_string()),
        ];
        let added = added.into_iter().filter(|(name, _)| is_needed(name));
        let given = self.headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
        head.extend(added.chain(given).map(|(name, value)| format!("{name}: {value}\r\n")));
        head += "\r\n";
        [head.as_bytes(), &self.body].concat()
    }

    pub(crate) async fn send(&self, address: &str) -> Reply {
        let mut connection = TcpStream::connect(address).await.unwrap();
        // A server may answer and close the connection before it has read everything.
        drop(connection.write_all(&self.bytes(address)).await);
        Reply::read(&mut connection).await.expect("an answer")
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The headers in the order of the answer, their names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads a connection to its end. Returns `None` if the server closed it without a whole head.
    pub(crate) async fn read(connection: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut bytes = Vec::new();
        // The end may be a reset, after the server did not read everything.
        while connection.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head of text");
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let header =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        let mut reply = Self { status, headers: lines.filter_map(header).collect(), body: bytes[end + 4..].to_vec() };
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = whole(&reply.body);
        }
        Some(reply)
    }

    /// Returns the value of a header, which occurs once at most.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(given, _)| given == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "`{name}` occurs twice: {self:?}");
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body of text")
    }

    /// Returns the one JSON value of the body.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }
}

/// Returns a body that came in chunks.
fn whole(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunked.windows(2).position(|window| window == b"\r\n").expect("the length of a chunk");
        let length = std::str::from_utf8(&chunked[..end]).expect("a number");
        let length = usize::from_str_radix(length, 16).expect("a number");
        if length == 0 {
            return body;
        }
        let start = end + 2;
        body.extend_from_slice(&chunked[start..start + length]);
        chunked = &chunked[start + length + 2..];
    }
}
