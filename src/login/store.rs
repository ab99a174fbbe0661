//! The files of the logins, one for each server. Only their owner can read them. A folder or a file that somebody else could
//! have made or changed is refused: it could bring a login of theirs, or lead the tokens to them.
//!
//! A file is written beside the former one and renamed, so that a command that is stopped leaves the one or the other. A
//! lock, in a file of its own, lets one command at a time change a login.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::error::LoginError;
use crate::settings::Secret;

/// The characters of an origin that are not written as they are in the name of its file.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-');
/// The modes that give everything to the owner and nothing to others.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The bits of a mode that let the group or everybody else do anything.
const OTHERS: u32 = 0o077;
/// The bits of a mode that let the group or everybody else write.
const OTHERS_WRITE: u32 = 0o022;
/// The largest file, in bytes. It holds parts of an issuer's answers, which are smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The pause between two looks at a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// The most looks at a lock. Whoever holds it waits for one answer of the issuer, which takes less than 30 seconds.
const LOCK_LOOKS_MAX: u32 = 600;

/// A login as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredLogin {
    /// The server that the tokens are for. They are sent to no other.
    pub(crate) origin: String,
    pub(crate) issuer: String,
    /// The identifier of the server at the issuer.
    pub(crate) resource: String,
    pub(crate) client_id: String,
    pub(crate) scope: String,
    pub(super) token_endpoint: String,
    pub(super) revocation_endpoint: Option<String>,
    /// The end of the access token, in seconds since 1970, if the issuer named one.
    pub(crate) expires_at: Option<u64>,
    pub(crate) access_token: Secret,
    pub(crate) refresh_token: Option<Secret>,
}

/// The text of a file. Nothing shows it, since it holds the tokens in plain text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    version: u32,
    origin: String,
    issuer: String,
    resource: String,
    client_id: String,
    scope: String,
    token_endpoint: String,
    revocation_endpoint: Option<String>,
    expires_at: Option<u64>,
    access_token: String,
    refresh_token: Option<String>,
}

/// The form of the files. A file of another version is refused.
const VERSION: u32 = 1;

/// The folder of the logins of one person.
#[derive(Clone, Debug)]
pub(crate) struct LoginStore {
    directory: PathBuf,
}

/// The right to change a login. It ends with the value.
#[derive(Debug)]
pub(crate) struct LockedLogin {
    directory: PathBuf,
    path: PathBuf,
    _lock: File,
}

impl LoginStore {
    /// Names the folder. It is created when the first login is stored.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Reads the login for a server.
    ///
    /// # Errors
    /// When the file is there and cannot be read, others can read it, or others can change what lies in the folder.
    pub(crate) fn read(&self, origin: &str) -> Result<Option<StoredLogin>, LoginError> {
        let path = self.path(origin);
        let Some(folder) = if_there(fs::metadata(&self.directory), &self.directory)? else { return Ok(None) };
        refuse_writers(&folder, &self.directory)?;
        let Some(entry) = if_there(fs::symlink_metadata(&path), &path)? else { return Ok(None) };
        if !entry.is_file() {
            // A link leads elsewhere, and reading a pipe would wait for its writer.
            let shown = path.display();
            return Err(LoginError::File(format!("`{shown}` is not a file of its own; delete it and log in again")));
        }
        // Another command may have deleted it by now.
        let Some(file) = if_there(File::open(&path), &path)? else { return Ok(None) };
        refuse_others(&file, &path, &folder)?;
        let text = std::io::read_to_string(file.take(FILE_BYTES_MAX)).map_err(|e| failed("read", &path, &e))?;
        // The error of the parser is left out, since it could repeat a part of the text.
        let unreadable = || {
            let shown = path.display();
            LoginError::File(format!("`{shown}` is not the file of a login; delete it and log in again"))
        };
        let Ok(read) = serde_json::from_str::<FileText>(&text) else { return Err(unreadable()) };
        // A file that was copied to the name of another server must not send its token there.
        if read.version != VERSION || read.origin != origin {
            return Err(unreadable());
        }
        Ok(Some(StoredLogin {
            origin: read.origin,
            issuer: read.issuer,
            resource: read.resource,
            client_id: read.client_id,
            scope: read.scope,
            token_endpoint: read.token_endpoint,
            revocation_endpoint: read.revocation_endpoint,
            expires_at: read.expires_at,
            access_token: Secret::new(read.access_token),
            refresh_token: read.refresh_token.map(Secret::new),
        }))
    }

    /// Waits until no other command changes the login for a server.
    ///
    /// # Errors
    /// When the folder cannot be used or is somebody else's, or another command holds the lock for too long.
    pub(crate) async fn lock(&self, origin: &str) -> Result<LockedLogin, LoginError> {
        create_private(&self.directory)?;
        let path = self.path(origin);
        // The file of the login is replaced, so a lock of that file would not keep others out.
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(&lock_path);
        let lock = lock.map_err(|e| failed("open", &lock_path, &e))?;
        for _ in 0..LOCK_LOOKS_MAX {
            match lock.try_lock() {
                Ok(()) => return Ok(LockedLogin { directory: self.directory.clone(), path, _lock: lock }),
                Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(e)) => return Err(failed("lock", &lock_path, &e)),
            }
        }
        let shown = lock_path.display();
        Err(LoginError::File(format!("another command has held `{shown}` for too long")))
    }

    fn path(&self, origin: &str) -> PathBuf {
        // `with_extension` replaces this end of the name. Without it, it would replace the end of a host, such as `.example`.
        self.directory.join(format!("{}.json", utf8_percent_encode(origin, ENCODED)))
    }
}

impl LockedLogin {
    /// Replaces the login.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, login: &StoredLogin) -> Result<(), LoginError> {
        let text = FileText {
            version: VERSION,
            origin: login.origin.clone(),
            issuer: login.issuer.clone(),
            resource: login.resource.clone(),
            client_id: login.client_id.clone(),
            scope: login.scope.clone(),
            token_endpoint: login.token_endpoint.clone(),
            revocation_endpoint: login.revocation_endpoint.clone(),
            expires_at: login.expires_at,
            access_token: login.access_token.expose().to_owned(),
            refresh_token: login.refresh_token.as_ref().map(|token| token.expose().to_owned()),
        };
        self.replace(&text).map_err(|e| failed("write", &self.path, &e))
    }

    fn replace(&self, text: &FileText) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(text)?;
        let new = self.new_path();
        remove_if_there(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // Without this, a power failure could bring back the former refresh token, which the issuer would take for stolen.
        File::open(&self.directory)?.sync_all()
    }

    /// Deletes the login.
    ///
    /// # Errors
    /// When the file cannot be deleted.
    pub(crate) fn remove(&self) -> Result<(), LoginError> {
        for path in [&self.path, &self.new_path()] {
            remove_if_there(path).map_err(|e| failed("delete", path, &e))?;
        }
        Ok(())
    }

    /// Returns the path of the file that takes the place of the former one. Its name is fixed, so that the next command finds
    /// and replaces the tokens that a stopped command left there.
    fn new_path(&self) -> PathBuf {
        self.path.with_extension("new")
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> LoginError {
    LoginError::File(format!("cannot {what} `{}`: {error}", path.display()))
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn create_private(directory: &Path) -> Result<(), LoginError> {
    let created = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    created.map_err(|e| failed("create", directory, &e))?;
    let folder = fs::metadata(directory).map_err(|e| failed("read", directory, &e))?;
    // A new file belongs to this user, so its owner is compared with that of the folder. Root can write to everybody's folders.
    let own = tempfile::tempfile_in(directory).and_then(|file| file.metadata());
    let own = own.map_err(|e| failed("create a file in", directory, &e))?;
    if own.uid() != folder.uid() {
        let shown = directory.display();
        return Err(LoginError::File(format!("`{shown}` belongs to another user, who could read the tokens in it")));
    }
    if folder.permissions().mode() & 0o777 == DIRECTORY_MODE {
        return Ok(());
    }
    let closed = fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE));
    closed.map_err(|e| failed("keep others out of", directory, &e))
}

/// Returns what was found; `None` if there is nothing.
fn if_there<T>(found: std::io::Result<T>, path: &Path) -> Result<Option<T>, LoginError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path, &e)),
    }
}

fn refuse_writers(folder: &Metadata, directory: &Path) -> Result<(), LoginError> {
    if folder.permissions().mode() & OTHERS_WRITE == 0 {
        return Ok(());
    }
    let shown = directory.display();
    Err(LoginError::File(format!(
        "others can change the logins in `{shown}`; keep them out with `chmod 700` and log in again"
    )))
}

fn refuse_others(file: &File, path: &Path, folder: &Metadata) -> Result<(), LoginError> {
    let found = file.metadata().map_err(|e| failed("read", path, &e))?;
    let shown = path.display();
    if found.uid() != folder.uid() {
        return Err(LoginError::File(format!("`{shown}` belongs to another user; delete it and log in again")));
    }
    let mode = found.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(LoginError::File(format!(
        "others can read the tokens in `{shown}` (mode {:o}); delete it and log in again",
        mode & 0o777
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://rag.example:8980";

    fn login() -> StoredLogin {
        StoredLogin {
            origin: ORIGIN.to_owned(),
            issuer: "https://login.example".to_owned(),
            resource: ORIGIN.to_owned(),
            client_id: "cli".to_owned(),
            scope: "ragward:retrieve".to_owned(),
            token_endpoint: "https://login.example/token".to_owned(),
            revocation_endpoint: None,
            expires_at: Some(1_000),
            access_token: Secret::new("hush1"),
            refresh_token: Some(Secret::new("hush2")),
        }
    }

    fn store(parent: &Path) -> LoginStore {
        LoginStore::new(parent.join("ragward/logins"))
    }

    #[tokio::test]
    async fn a_login_is_kept_until_it_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        assert_eq!(store.read(ORIGIN).unwrap(), None, "no folder");
        let locked = store.lock(ORIGIN).await.unwrap();
        assert_eq!(store.read(ORIGIN).unwrap(), None, "no file");
        locked.write(&login()).unwrap();
        assert_eq!(store.read(ORIGIN).unwrap(), Some(login()));
        assert_eq!(store.read("https://rag.example:8981").unwrap(), None, "another port");
        locked.remove().unwrap();
        locked.remove().unwrap();
        assert_eq!(store.read(ORIGIN).unwrap(), None, "removed");
    }

    #[tokio::test]
    async fn others_can_read_neither_the_folder_nor_the_files() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        fs::create_dir_all(&store.directory).unwrap();
        fs::set_permissions(&store.directory, fs::Permissions::from_mode(0o755)).unwrap();
        let locked = store.lock(ORIGIN).await.unwrap();
        locked.write(&login()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = store.path(ORIGIN);
        let rows = [
            ("the folder", store.directory.clone(), 0o700),
            ("the login", path.clone(), 0o600),
            ("the lock", path.with_extension("lock"), 0o600),
        ];
        for (row, path, expected) in rows {
            assert_eq!(mode(&path), expected, "{row}");
        }
        for open in [0o604, 0o640, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            let refused = store.read(ORIGIN).unwrap_err().to_string();
            assert!(refused.contains("others can read"), "{open:o}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_others_can_change_brings_no_login() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        store.lock(ORIGIN).await.unwrap().write(&login()).unwrap();
        for (row, mode, expected) in [("group", 0o720, false), ("all", 0o1702, false), ("readers", 0o755, true)] {
            fs::set_permissions(&store.directory, Permissions::from_mode(mode)).unwrap();
            let read = store.read(ORIGIN);
            assert_eq!(read.is_ok(), expected, "{row}: {read:?}");
        }
        drop(store.lock(ORIGIN).await.unwrap());
        assert_eq!(store.read(ORIGIN).unwrap(), Some(login()), "the lock keeps others out again");
    }

    /// Puts something at the second path. The first one is that of a login.
    type Make = fn(&Path, &Path) -> std::io::Result<()>;

    fn link(elsewhere: &Path, path: &Path) -> std::io::Result<()> {
        std::os::unix::fs::symlink(elsewhere, path)
    }

    fn folder(_elsewhere: &Path, path: &Path) -> std::io::Result<()> {
        fs::create_dir(path)
    }

    #[tokio::test]
    async fn what_is_not_a_file_of_its_own_is_no_login() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        store.lock(ORIGIN).await.unwrap().write(&login()).unwrap();
        let path = store.path(ORIGIN);
        let elsewhere = parent.path().join("elsewhere.json");
        fs::rename(&path, &elsewhere).unwrap();
        let rows: [(&str, Make); 2] = [("a link to a login", link), ("a folder", folder)];
        for (row, make) in rows {
            make(&elsewhere, &path).unwrap();
            let refused = store.read(ORIGIN).unwrap_err().to_string();
            assert!(refused.contains("not a file of its own"), "{row}: {refused}");
            fs::rename(&path, parent.path().join(row)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_link_is_replaced_and_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        let locked = store.lock(ORIGIN).await.unwrap();
        let elsewhere = parent.path().join("elsewhere");
        fs::write(&elsewhere, "before").unwrap();
        std::os::unix::fs::symlink(&elsewhere, store.path(ORIGIN)).unwrap();
        locked.write(&login()).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "before");
        assert_eq!(store.read(ORIGIN).unwrap(), Some(login()));
    }

    #[tokio::test]
    async fn what_a_stopped_command_left_is_no_login_and_does_not_stay() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        let locked = store.lock(ORIGIN).await.unwrap();
        let (left, elsewhere) = (locked.new_path(), parent.path().join("elsewhere"));
        fs::write(&elsewhere, "before").unwrap();
        let half: Make = |_elsewhere, path| fs::write(path, "{");
        let rows: [(&str, Make); 2] = [("half a login", half), ("a link", link)];
        for (row, make) in rows {
            make(&elsewhere, &left).unwrap();
            assert_eq!(store.read(ORIGIN).unwrap(), None, "{row}");
            locked.write(&login()).unwrap();
            assert_eq!(store.read(ORIGIN).unwrap(), Some(login()), "{row}");
            assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "before", "{row}");
            fs::write(&left, "hush").unwrap();
            locked.remove().unwrap();
            assert!(!left.exists(), "{row}: a logout deletes it");
        }
    }

    #[tokio::test]
    async fn root_keeps_no_tokens_in_a_folder_of_others() {
        const NOBODY: u32 = 65_534;
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        store.lock(ORIGIN).await.unwrap().write(&login()).unwrap();
        let path = store.path(ORIGIN);
        if std::os::unix::fs::chown(&path, Some(NOBODY), None).is_err() {
            drop(writeln!(std::io::stderr(), "skipped: only root can give a file to somebody else"));
            return;
        }
        let refused = store.read(ORIGIN).unwrap_err().to_string();
        assert!(refused.contains("belongs to another user"), "the file: {refused}");
        std::os::unix::fs::chown(&store.directory, Some(NOBODY), None).unwrap();
        let refused = store.lock(ORIGIN).await.map(drop).unwrap_err().to_string();
        assert!(refused.contains("belongs to another user"), "the folder: {refused}");
    }

    #[tokio::test]
    async fn a_file_that_is_none_is_refused_without_its_text() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        let locked = store.lock(ORIGIN).await.unwrap();
        locked.write(&login()).unwrap();
        let path = store.path(ORIGIN);
        let text = fs::read_to_string(&path).unwrap();
        let rows = [
            ("nothing", String::new()),
            ("too much", format!("{}{text}", " ".repeat(1 << 20))),
            ("half of it", text.split_at(text.len() / 2).0.to_owned()),
            ("the login of another server", text.replace("rag.example:8980", "other.example")),
            ("another version", text.replace("\"version\": 1", "\"version\": 2")),
            ("a member that nobody knows", text.replace("\"scope\"", "\"hush3\"")),
        ];
        for (row, text) in rows {
            fs::write(&path, text).unwrap();
            let refused = store.read(ORIGIN).unwrap_err().to_string();
            assert!(refused.contains("log in again") && !refused.contains("hush"), "{row}: {refused}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let shown = format!("{:?}", login());
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_command_at_a_time_changes_a_login() {
        let parent = tempfile::tempdir().unwrap();
        let store = store(parent.path());
        let first = store.lock(ORIGIN).await.unwrap();
        let refused = store.lock(ORIGIN).await.map(drop).unwrap_err().to_string();
        assert!(refused.contains("held"), "{refused}");
        assert!(store.lock("https://other.example").await.is_ok(), "another server");
        drop(first);
        assert!(store.lock(ORIGIN).await.is_ok(), "free again");
    }
}
