//! Tests of handshakes, and of files that change, over pipes.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

use super::sample::{Authority, Life, Pair, connect, files};
use super::*;

const PIPE_BYTES: usize = 64 * 1024;

/// Both ends of a connection after its handshake.
struct Connected {
    server: Secured<DuplexStream>,
    client: client::TlsStream<DuplexStream>,
}

impl Connected {
    /// Returns whether bytes still pass in both directions.
    async fn lives(&mut self) -> bool {
        let mut read = [0; 4];
        for (from, to) in [("ping", true), ("pong", false)] {
            let passed = if to {
                self.client.write_all(from.as_bytes()).await.unwrap();
                self.client.flush().await.unwrap();
                self.server.stream.read_exact(&mut read).await
            } else {
                self.server.stream.write_all(from.as_bytes()).await.unwrap();
                self.server.stream.flush().await.unwrap();
                self.client.read_exact(&mut read).await
            };
            if passed.is_err() || read != from.as_bytes() {
                return false;
            }
        }
        true
    }

    /// Returns the certificate that the server has shown.
    fn shown(&self) -> Vec<u8> {
        let (_, session) = self.client.get_ref();
        session.peer_certificates().unwrap()[0].to_vec()
    }
}

/// Makes a handshake. An error of the server comes before one of the client.
async fn handshake(tls: &Tls, client: &TlsConnector) -> io::Result<Connected> {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let (server, client) = tokio::join!(tls.secure(theirs), connect(client, ours));
    Ok(Connected { server: server?, client: client? })
}

/// A directory with a pair that an authority has signed.
struct World {
    authority: Authority,
    directory: tempfile::TempDir,
    tls: Tls,
    first: Pair,
}

impl World {
    fn start() -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        let first = authority.issue(Life::Running);
        first.write(directory.path());
        Self { tls: Tls::new(&files(directory.path())).unwrap(), authority, directory, first }
    }

    async fn connected(&self) -> io::Result<Connected> {
        handshake(&self.tls, &self.authority.client(None, &["h2"])).await
    }
}

type HandshakeRow<'a> = (&'a str, &'a [&'a str], Option<Option<&'a str>>);

#[tokio::test]
async fn client_and_server_agree_on_a_protocol() {
    let world = World::start();
    let rows: [HandshakeRow<'_>; 6] = [
        ("both", &["h2", "http/1.1"], Some(Some("h2"))),
        ("both, the other way", &["http/1.1", "h2"], Some(Some("h2"))),
        ("HTTP/1.1 alone", &["http/1.1"], Some(Some("http/1.1"))),
        ("none named", &[], Some(None)),
        ("an unknown one beside", &["h3", "http/1.1"], Some(Some("http/1.1"))),
        ("an unknown one", &["h3"], None),
    ];
    for (row, offered, expected) in rows {
        let connected = handshake(&world.tls, &world.authority.client(None, offered)).await.ok();
        let agreed = connected.as_ref().map(|connected| {
            let (_, session) = connected.client.get_ref();
            session.alpn_protocol().map(|name| std::str::from_utf8(name).unwrap())
        });
        assert_eq!(agreed, expected, "{row}");
    }
}

#[tokio::test]
async fn a_new_pair_counts_for_new_connections() {
    let world = World::start();
    let mut old = world.connected().await.unwrap();
    assert_eq!(old.shown(), world.first.certificate.to_vec());
    assert_eq!(world.tls.look(), Look::Unchanged);

    let second = world.authority.issue(Life::Running);
    second.write(world.directory.path());
    assert_eq!(world.tls.look(), Look::Taken);
    assert_eq!(world.connected().await.unwrap().shown(), second.certificate.to_vec());
    assert!(old.lives().await, "the old connection goes on");

    // A mounted secret is exchanged by its link. The time of the new file may be older than that of the old one.
    let third = world.authority.issue(Life::Running);
    let mounted = world.directory.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    third.write(&mounted);
    for name in ["tls.crt", "tls.key"] {
        std::fs::remove_file(world.directory.path().join(name)).unwrap();
        std::os::unix::fs::symlink(mounted.join(name), world.directory.path().join(name)).unwrap();
    }
    assert_eq!(world.tls.look(), Look::Taken);
    assert_eq!(world.connected().await.unwrap().shown(), third.certificate.to_vec());
}

#[tokio::test]
async fn a_bad_pair_keeps_the_old_one_and_is_told_once() {
    let another = Authority::new().issue(Life::Running);
    let rows: [(&str, Option<&str>, Option<&str>); 7] = [
        ("the key of another certificate", None, Some(&another.key_pem)),
        ("the certificate of another key", Some(&another.certificate_pem), None),
        ("an empty certificate", Some(""), None),
        ("an empty key", None, Some("")),
        ("a half certificate", another.certificate_pem.get(..100), None),
        ("the key in place of the certificate", Some(&another.key_pem), None),
        ("the certificate in place of the key", None, Some(&another.certificate_pem)),
    ];
    for (row, certificate, key) in rows {
        let world = World::start();
        let mut old = world.connected().await.unwrap();
        for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
            if let Some(text) = text {
                std::fs::write(world.directory.path().join(name), text).unwrap();
            }
        }
        assert_eq!(world.tls.look(), Look::Refused, "{row}");
        assert_eq!(world.tls.look(), Look::Unchanged, "{row}: it is told once");
        assert_eq!(world.connected().await.unwrap().shown(), world.first.certificate.to_vec(), "{row}");
        assert!(old.lives().await, "{row}");
        // The same directory does not start a server.
        assert!(Tls::new(&files(world.directory.path())).is_err(), "{row}");
        let good = world.authority.issue(Life::Running);
        good.write(world.directory.path());
        assert_eq!(world.tls.look(), Look::Taken, "{row}");
        assert_eq!(world.connected().await.unwrap().shown(), good.certificate.to_vec(), "{row}");
    }
}

#[tokio::test]
async fn files_that_are_gone_keep_the_old_pair() {
    let world = World::start();
    std::fs::remove_file(world.directory.path().join("tls.key")).unwrap();
    assert_eq!((world.tls.look(), world.tls.look()), (Look::Refused, Look::Unchanged));
    assert_eq!(world.connected().await.unwrap().shown(), world.first.certificate.to_vec());
    world.first.write(world.directory.path());
    assert_eq!(world.tls.look(), Look::Taken);
}

#[tokio::test]
async fn a_certificate_that_has_ended_ends_no_connection_and_can_be_replaced() {
    let world = World::start();
    let mut old = world.connected().await.unwrap();
    world.authority.issue(Life::Over).write(world.directory.path());
    assert_eq!(world.tls.look(), Look::Taken);
    assert!(world.connected().await.is_err(), "a client does not take it");
    assert!(old.lives().await);
    let renewed = world.authority.issue(Life::Running);
    renewed.write(world.directory.path());
    assert_eq!(world.tls.look(), Look::Taken);
    assert_eq!(world.connected().await.unwrap().shown(), renewed.certificate.to_vec());
}

#[tokio::test(start_paused = true)]
async fn the_files_are_looked_at_by_themselves() {
    let world = World::start();
    let second = world.authority.issue(Life::Running);
    second.write(world.directory.path());
    tokio::select! {
        never = world.tls.keep_current() => match never {},
        // The clock moves on while nothing else can be done.
        () = sleep(3 * LOOK_INTERVAL) => {}
    }
    assert_eq!(world.connected().await.unwrap().shown(), second.certificate.to_vec());
}

#[tokio::test]
async fn a_client_shows_a_good_certificate_or_none() {
    let (world, clients, others) = (World::start(), Authority::new(), Authority::new());
    std::fs::write(world.directory.path().join("ca.crt"), clients.pem()).unwrap();
    let mut files = files(world.directory.path());
    files.client_ca_file = Some(world.directory.path().join("ca.crt"));
    let tls = Tls::new(&files).unwrap();
    let (good, wrong, over) = (clients.issue(Life::Running), others.issue(Life::Running), clients.issue(Life::Over));
    let rows = [
        ("none", None, Some(None)),
        ("a good one", Some(&good), Some(Some(CertificateThumbprint::of(&good.certificate)))),
        ("one of another authority", Some(&wrong), None),
        ("one that has ended", Some(&over), None),
    ];
    for (row, shown, expected) in rows {
        let client = world.authority.client(shown, &["h2"]);
        // Twice with the same client: its second handshake could resume the session of the first.
        for time in ["first", "second"] {
            let connected = handshake(&tls, &client).await.ok();
            let seen = connected.as_ref().map(|connected| connected.server.certificate.0);
            assert_eq!(seen, expected, "{row}, {time}");
            if let Some(mut connected) = connected {
                assert!(connected.lives().await, "{row}, {time}");
                let (_, session) = connected.client.get_ref();
                assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full), "{row}, {time}");
            }
        }
    }
    // A server without authorities asks for no certificate.
    let connected = handshake(&world.tls, &world.authority.client(Some(&good), &["h2"])).await.unwrap();
    assert_eq!(connected.server.certificate, ClientCertificate(None));
    // The authorities change like the certificate.
    std::fs::write(world.directory.path().join("ca.crt"), others.pem()).unwrap();
    assert_eq!(tls.look(), Look::Taken);
    assert!(handshake(&tls, &world.authority.client(Some(&good), &["h2"])).await.is_err());
    assert!(handshake(&tls, &world.authority.client(Some(&wrong), &["h2"])).await.is_ok());
}

#[test]
fn what_cannot_be_used_is_told_without_its_contents() {
    let directory = tempfile::tempdir().unwrap();
    let pair = Authority::new().issue(Life::Running);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let canary = "-----BEGIN canary-93\ncanary-93";
    let large = "a".repeat(2 * 1024 * 1024);
    let rows: [(&str, &str, &str, Option<&str>, &str); 7] = [
        ("no certificate", "", &pair.key_pem, None, "`server.tls.cert_file` is"),
        ("not PEM", canary, &pair.key_pem, None, "`server.tls.cert_file` is"),
        ("no key", &pair.certificate_pem, canary, None, "`server.tls.key_file` is"),
        ("a key with a password", &pair.certificate_pem, encrypted, None, "has to be decrypted first"),
        ("no authorities", &pair.certificate_pem, &pair.key_pem, Some(""), "`server.tls.client_ca_file` is"),
        (
            "authorities that are not PEM",
            &pair.certificate_pem,
            &pair.key_pem,
            Some(canary),
            "`server.tls.client_ca_file` is",
        ),
        ("too large", &large, &pair.key_pem, None, "it is larger than 1048576 bytes"),
    ];
    let path = |name: &str| directory.path().join(name);
    for (row, certificate, key, authorities, expected) in rows {
        std::fs::write(path("tls.crt"), certificate).unwrap();
        std::fs::write(path("tls.key"), key).unwrap();
        let mut files = files(directory.path());
        if let Some(authorities) = authorities {
            std::fs::write(path("ca.crt"), authorities).unwrap();
            files.client_ca_file = Some(path("ca.crt"));
        }
        let error = Tls::new(&files).err().unwrap().to_string();
        assert!(error.contains(expected) && !error.contains("canary"), "{row}: {error}");
    }
    let nowhere = files(&path("nowhere"));
    assert!(Tls::new(&nowhere).err().unwrap().to_string().contains("nowhere/tls.crt"));
    let mut folder = files(directory.path());
    folder.cert_file = directory.path().to_owned();
    assert!(Tls::new(&folder).err().unwrap().to_string().contains("it is not a file"));
}
