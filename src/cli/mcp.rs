//! `ragward mcp --stdio`: the tools of `/mcp` for a desktop client, which starts this program and speaks with it by lines on
//! standard input and output. Nothing else is written to standard output; logs go to standard error.
//!
//! Each call asks the services as the one person who started the program: as the bearer of the token of that person at a
//! server, or as the user of `--user` in a data directory.

mod lines;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::future::{AbortHandle, AbortRegistration, Abortable, LocalBoxFuture};
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use self::lines::{Line, Lines};
use super::{CalledServices, Connection, Failure, client_of};
use crate::client::{Client, RemoteServer};
use crate::server::{LocalMcp, McpAsked, McpSettings, PendingCall, Refusal, RequestId};
use crate::visible::visible_json;

/// The most calls that run at a time: more than a model makes in one turn, and few enough for any server.
const RUNNING_MAX: usize = 8;
/// The most calls that are open, with those that wait for their turn. Each of them holds one message.
const OPEN_MAX: usize = 64;
/// The longest time of one call once it has its turn. By default, a server works on one request for a shorter time.
const CALL_MAX: Duration = Duration::from_mins(1);
/// The time that running calls have once the input has ended. Most clients are gone then, and a script that waits for its
/// answers gets those of a server that works.
const LAST_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct McpArgs {
    /// Speak MCP on standard input and output, one message in each line, as desktop clients expect.
    #[arg(long)]
    stdio: bool,
    /// The user who asks, such as `user:anne`. A data directory needs it. At a server, leave it out: your token names you.
    #[arg(long)]
    user: Option<String>,
    /// The collection that a search without a collection searches. Models know no names, so most clients need it.
    #[arg(long)]
    collection: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// The services that are called.
enum Called {
    /// To a server, with the token of the moment.
    Server { connection: Connection, last: Mutex<Option<LastClient>> },
    /// To the services of this process.
    InProcess(CalledServices),
}

/// The client of the last call. It is used again as long as the token is the same.
struct LastClient {
    server: RemoteServer,
    client: Client,
}

/// The calls of one client.
struct Calls<'s> {
    mcp: &'s LocalMcp,
    called: &'s Called,
    user: &'s str,
    turns: &'s Semaphore,
    /// `None` is a call that was given up.
    running: FuturesUnordered<LocalBoxFuture<'s, Option<Finished>>>,
    /// The calls that have no answer yet.
    open: Vec<OpenCall>,
}

struct OpenCall {
    id: RequestId,
    /// The wait for its turn, and the call itself.
    aborts: [AbortHandle; 2],
}

/// A call with its answer.
struct Finished {
    id: RequestId,
    answer: String,
}

pub(super) async fn run(args: McpArgs, config: Option<PathBuf>) -> Result<(), Failure> {
    let McpArgs { stdio, user, collection, connection } = args;
    if !stdio {
        return Err(Failure::usage(
            "say `--stdio`: MCP over HTTP is the door `/mcp` of `ragward serve` (`server.mcp`)",
        ));
    }
    let user = connection.asker(user)?;
    let mcp = LocalMcp::new(McpSettings { collection, ..McpSettings::default() })
        .map_err(|e| Failure::failed(e.to_string()))?;
    let called = Called::open(connection, config).await?;
    let input = Lines::new(tokio::io::stdin(), LocalMcp::MESSAGE_BYTES_MAX);
    let turns = Semaphore::new(RUNNING_MAX);
    let calls = Calls {
        mcp: &mcp,
        called: &called,
        user: &user,
        turns: &turns,
        running: FuturesUnordered::new(),
        open: Vec::new(),
    };
    let served = calls.serve(input, tokio::io::stdout()).await;
    called.close().await;
    served
}

impl Called {
    async fn open(connection: Connection, config: Option<PathBuf>) -> Result<Self, Failure> {
        match connection.remote_server()? {
            Some(server) => {
                // A wrong address ends the command at once. A login may still come: its token is read at each call.
                drop(client_of(&server)?);
                Ok(Self::Server { connection, last: Mutex::new(None) })
            }
            None => Ok(Self::InProcess(connection.open_existing(config).await?)),
        }
    }

    /// Returns the client for one call.
    async fn client(&self) -> Result<Client, Failure> {
        let (connection, last) = match self {
            Self::Server { connection, last } => (connection, last),
            Self::InProcess(services) => return Ok(services.client().clone()),
        };
        // The token is read anew: it may have been renewed since the last call, or be that of a new login.
        let server = connection.called_server().await?.ok_or_else(|| Failure::failed("the server is gone"))?;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.server == server) {
            return Ok(last.client.clone());
        }
        let client = client_of(&server)?;
        *last = Some(LastClient { server, client: client.clone() });
        Ok(client)
    }

    async fn close(self) {
        match self {
            Self::Server { .. } => {}
            Self::InProcess(services) => services.close().await,
        }
    }
}

impl<'s> Calls<'s> {
    /// Answers messages until `input` ends, and then the calls that still run.
    async fn serve(
        mut self,
        mut input: Lines<impl AsyncRead + Unpin>,
        mut output: impl AsyncWrite + Unpin,
    ) -> Result<(), Failure> {
        loop {
            let answer = tokio::select! {
                line = input.next() => match line? {
                    Some(Line::Whole(message)) => self.take(&message),
                    Some(Line::TooLong) => Some(LocalMcp::too_large()),
                    None => break,
                },
                Some(ended) = self.running.next() => ended.map(|finished| self.finish(finished)),
            };
            if let Some(answer) = answer {
                write(&mut output, &answer).await?;
            }
        }
        let last = async {
            while let Some(ended) = self.running.next().await {
                if let Some(finished) = ended {
                    write(&mut output, &self.finish(finished)).await?;
                }
            }
            Ok::<(), Failure>(())
        };
        tokio::time::timeout(LAST_MAX, last).await.unwrap_or_else(|_elapsed| {
            tracing::warn!("calls still ran when the input had ended; they were given up");
            Ok(())
        })
    }

    /// Takes a message in, and returns its answer if it needs no call.
    fn take(&mut self, message: &[u8]) -> Option<String> {
        match self.mcp.read(message) {
            McpAsked::Answered(answer) => Some(answer),
            McpAsked::Nothing => None,
            McpAsked::Cancelled(id) => {
                if let Some(place) = self.open.iter().position(|call| call.id == id) {
                    for abort in self.open.swap_remove(place).aborts {
                        abort.abort();
                    }
                }
                None
            }
            McpAsked::Call(call) if self.open.iter().any(|open| open.id == *call.id()) => Some(LocalMcp::id_in_use()),
            McpAsked::Call(call) if self.open.len() >= OPEN_MAX => {
                let text = "too many calls wait for their answers; wait for some, then try again";
                Some(call.refused(&Refusal::new(Code::ResourceExhausted, text)))
            }
            McpAsked::Call(call) => {
                self.begin(call);
                None
            }
        }
    }

    fn begin(&mut self, call: PendingCall) {
        let (wait_abort, waiting) = AbortHandle::new_pair();
        let (call_abort, calling) = AbortHandle::new_pair();
        self.open.push(OpenCall { id: call.id().clone(), aborts: [wait_abort, call_abort] });
        let (called, user, turns) = (self.called, self.user, self.turns);
        let answering: LocalBoxFuture<'s, Option<Finished>> = Box::pin(async move {
            // The semaphore is never closed. The permit is held until the call has ended.
            let _turn = Abortable::new(turns.acquire(), waiting).await.ok()?;
            let answered = tokio::time::timeout(CALL_MAX, answer(called, user, &call, calling)).await;
            let answer = answered.unwrap_or_else(|_elapsed| {
                let text = "there was no answer in time; try again later";
                Some(call.refused(&Refusal::new(Code::DeadlineExceeded, text)))
            });
            Some(Finished { id: call.id().clone(), answer: answer? })
        });
        self.running.push(answering);
    }

    /// Returns the answer of a call, which is then no longer open.
    fn finish(&mut self, finished: Finished) -> String {
        self.open.retain(|call| call.id != finished.id);
        finished.answer
    }
}

/// Makes a call, and returns its answer; `None` if it was given up.
async fn answer(called: &Called, user: &str, call: &PendingCall, calling: AbortRegistration) -> Option<String> {
    // INVARIANT (no lost login): this is not given up with the call. It may renew the token, and then the issuer takes the former
    // refresh token no longer. It ends before `CALL_MAX`.
    let client = called.client().await;
    let answering = async {
        let client = match client {
            Ok(client) => client,
            // The login has ended, or its file cannot be used. The text says what to do.
            Err(failure) => return call.refused(&Refusal::new(Code::Unauthenticated, failure.text().to_owned())),
        };
        match call.answer(client.retrieval(), user, CALL_MAX).await {
            Ok(answer) => answer,
            Err(status) => call.refused(&refusal(status)),
        }
    };
    Abortable::new(answering, calling).await.ok()
}

/// Returns the reason for the model and the person behind it.
fn refusal(status: Status) -> Refusal {
    // A status without details comes from the connection, not from a service.
    let is_of_a_service = status.get_details_error_info().is_some();
    if is_of_a_service && status.code() != Code::Unauthenticated {
        return Refusal::from(&status);
    }
    let code = status.code();
    Refusal::new(code, Failure::from(status).text().to_owned())
}

/// Writes a message as one line. Some readers of lines take separators of Unicode for ends, and a terminal obeys controls, so
/// whatever nobody sees is written as JSON's own escapes. Otherwise whoever wrote a document could break its message.
async fn write(output: &mut (impl AsyncWrite + Unpin), answer: &str) -> Result<(), Failure> {
    let line = format!("{}\n", visible_json(answer));
    output.write_all(line.as_bytes()).await?;
    Ok(output.flush().await?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_message_is_one_line_whoever_reads_it() {
        let rows = [
            ("plain", "about leave, café"),
            ("an end of a line", "a\nb\r\nc"),
            ("separators of lines", "a\u{2028}b\u{2029}c"),
            ("the next line of Latin-1", "a\u{85}b"),
            ("other ends", "a\u{b}b\u{c}c\u{1c}d\u{1d}e\u{1e}f"),
            ("a colour of Latin-1", "a\u{9b}31mb\u{7f}"),
        ];
        for (row, text) in rows {
            let answer = json!({ "text": text });
            let mut written = Vec::new();
            write(&mut written, &answer.to_string()).await.unwrap();
            let line = String::from_utf8(written).unwrap();
            let whole = line.strip_suffix('\n').unwrap();
            let is_end = |c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c);
            assert!(!whole.contains(is_end), "{row}: {whole:?}");
            assert_eq!(serde_json::from_str::<Value>(whole).unwrap(), answer, "{row}");
        }
    }
}
