//! A stranger's page in a real browser: Chromium sends to every route whatever a page can send, from another origin, and by a
//! name that was pointed at this machine after the page was loaded (DNS rebinding). The server refuses all of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::doors::browser_pages::{Filled, body, filled, routes, state};
use crate::doors::world::records;
use crate::support::chromium::chromium;

/// The name of the page's own site.
const SITE: &str = "site.example";
/// The name that leads to the page's site first, and then to the server.
const REBOUND: &str = "rebound.example";
const PAGE: &str = include_str!("clients/browser/page.html");
/// The longest that a page may take. It sends some 700 requests.
const REPORT_MAX: Duration = Duration::from_mins(3);
/// A way of the page whose requests may be sent after the page has reported.
const BEACON: &str = "a beacon";
/// The largest request that the page's site reads: a report.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// One request of a page, and what the page learned of it.
#[derive(Debug, Deserialize)]
struct Tried {
    route: String,
    way: String,
    outcome: String,
}

/// Opens a page. Nothing but the server refuses what it sends: Chromium's own guards of this machine are off.
fn open(chromium: &Path, profile: &Path, url: &str) -> Child {
    let mut command = Command::new(chromium);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"])
        // Otherwise Chromium delays the forms of a page that sends many.
        .arg("--disable-ipc-flooding-protection")
        .arg("--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests")
        .arg(format!("--host-resolver-rules=MAP {SITE} 127.0.0.1, MAP {REBOUND} 127.0.0.1"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.spawn().expect("Chromium starts")
}

/// Reads a request with its body. Returns the first line and the body.
async fn request(connection: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 || bytes.len() > REQUEST_BYTES_MAX {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let length: usize = length.unwrap_or_default();
    while bytes.len() < end + length && bytes.len() <= REQUEST_BYTES_MAX {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some((head.lines().next()?.to_owned(), bytes.split_off(end)))
}

async fn answer(connection: &mut TcpStream, status: &str, html: &str) {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        html.len()
    );
    // The browser may have gone; then nobody reads this.
    drop(connection.write_all(format!("{head}{html}").as_bytes()).await);
    drop(connection.shutdown().await);
}

/// The page's own site. It serves the page, and takes its report.
async fn site(listener: TcpListener, page: String, reports: mpsc::Sender<Vec<u8>>) {
    while let Ok((mut connection, _)) = listener.accept().await {
        let (page, reports) = (page.clone(), reports.clone());
        // A browser opens connections in advance, and may leave them idle.
        tokio::spawn(async move {
            let Some((line, body)) = request(&mut connection).await else { return };
            if line.starts_with("get /page ") {
                answer(&mut connection, "200 OK", &page).await;
            } else if line.starts_with("post /report ") {
                answer(&mut connection, "204 No Content", "").await;
                // A test that has failed reads no report.
                drop(reports.send(body).await);
            } else {
                answer(&mut connection, "404 Not Found", "").await;
            }
        });
    }
}

/// The address of a name that is pointed elsewhere: it gives the page, and from then on it is the server.
async fn rebinding(listener: TcpListener, page: String, server: String) {
    while let Ok((mut connection, _)) = listener.accept().await {
        let (page, server) = (page.clone(), server.clone());
        tokio::spawn(async move {
            let mut first = [0; 10];
            let peeked = connection.peek(&mut first).await.unwrap_or_default();
            if first[..peeked] == *b"GET /page " {
                if request(&mut connection).await.is_some() {
                    answer(&mut connection, "200 OK", &page).await;
                }
            } else if let Ok(mut server) = TcpStream::connect(server).await {
                // Either side may close it at any time.
                drop(copy_bidirectional(&mut connection, &mut server).await);
            }
        });
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_in_a_browser_reaches_a_service() {
    let Some(chromium) = chromium("a page in a browser") else { return };
    let data = tempfile::tempdir().unwrap();
    let Filled { running, address, store, model, before } = filled(data.path()).await;

    let routes: Vec<Value> = routes()
        .iter()
        .map(|route| json!({ "verb": route.verb, "path": route.path(&store, &model) }))
        .chain(["/openapi.json", "/livez", "/readyz"].map(|path| json!({ "verb": "GET", "path": path })))
        .collect();
    let ((on_site, site_port), (on_rebound, rebound_port)) = (listener().await, listener().await);
    let page = |target: &str| {
        let report = format!("http://{SITE}:{site_port}/report");
        let tries = json!({ "routes": routes, "target": target, "report": report, "body": body() });
        PAGE.replace("= TRIES", &format!("= {tries}"))
    };
    let (reports, mut reported) = mpsc::channel(1);
    let serving = [
        tokio::spawn(site(on_site, page(&format!("http://{address}")), reports)),
        tokio::spawn(rebinding(on_rebound, page(""), address.clone())),
    ];
    let mut sent = 0;
    let rows = [
        ("a page of another origin", format!("http://{SITE}:{site_port}/page"), ["failed", "unread", "sent"]),
        ("a page by a rebinding name", format!("http://{REBOUND}:{rebound_port}/page"), ["403", "403", "sent"]),
    ];
    for (row, url, expected) in rows {
        let profile = tempfile::tempdir().unwrap();
        let browser = open(&chromium, profile.path(), &url);
        let report = timeout(REPORT_MAX, reported.recv()).await.unwrap_or_else(|_| panic!("{row}: no report"));
        drop(browser);
        let tried: Vec<Tried> = serde_json::from_slice(&report.expect("a report")).expect("the report's JSON");
        assert_eq!(tried.len(), routes.len() * 12, "{row}");
        for Tried { route, way, outcome } in &tried {
            assert!(expected.contains(&outcome.as_str()), "{row}: {route}, {way}: {outcome}");
        }
        // A beacon is sent whenever the browser likes, so its refusal may come later.
        let is_refused = |tried: &&Tried| tried.way != BEACON;
        sent += tried.iter().filter(is_refused).count();
    }
    assert_eq!(state(&running, &store).await, before, "nothing was changed");
    running.stop().await.unwrap();
    for task in serving {
        task.abort();
    }

    let records = records(data.path());
    let refused = records.iter().filter(|record| record.code == "PERMISSION_DENIED").count();
    assert!(refused >= sent, "the server refused {refused} of {sent} requests");
    let served = records.iter().filter(|record| record.code == "OK").map(|record| record.call.as_str());
    let expected = BTreeSet::from([
        // The one change is the test's own.
        "ragward.ingest.v1.IngestService/UpsertDocuments",
        // The test reads the state by these.
        "openfga.v1.OpenFGAService/ListStores",
        "openfga.v1.OpenFGAService/ReadAuthorizationModels",
        "openfga.v1.OpenFGAService/ReadChanges",
        "ragward.ingest.v1.IngestService/GetIngestStatus",
    ]);
    assert_eq!(served.collect::<BTreeSet<&str>>(), expected, "nothing else was served");
}
