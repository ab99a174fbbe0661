//! A port of loopback for a test that must know it before anything listens on it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port that is held without listening, so that a connection to it is refused.
///
/// While the value lives, nobody who asks for any free port gets this one. A server that is told the port can still
/// listen on it, because both it and the holder set `SO_REUSEADDR`, as servers do.
pub(crate) struct HeldPort {
    pub(crate) address: SocketAddr,
    _socket: TcpSocket,
}

impl HeldPort {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        Self { address: socket.local_addr().expect("its address"), _socket: socket }
    }
}
