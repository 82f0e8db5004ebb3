//! A database address with several hosts: one that does not respond delays connections, and prevents none.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Database, Server};

/// A host that does not respond to Postgres' protocol.
struct SilentHost {
    listener: Socket,
    /// The connections that fill its queue.
    _queued: Vec<TcpStream>,
}

impl SilentHost {
    /// Accepts connections and never sends a byte, like a stopped process.
    fn accepting() -> Self {
        Self { listener: listener(128), _queued: Vec::new() }
    }

    /// Drops the packets of new connections, like a machine without power: its queue is full.
    async fn dropping() -> Self {
        let (listener, mut queued) = (listener(0), Vec::new());
        let address = address(&listener);
        while let Ok(connected) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        Self { listener, _queued: queued }
    }

    /// Returns an address with this host, then the one of `database`.
    fn before(&self, database: &Database) -> String {
        let Some((start, socket)) = database.url.split_once('@') else { panic!("{}", database.url) };
        format!("{start}@{},{socket}", address(&self.listener))
    }
}

fn listener(queue: i32) -> Socket {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(queue).unwrap();
    listener
}

fn address(listener: &Socket) -> SocketAddr {
    listener.local_addr().unwrap().as_socket().unwrap()
}

/// Two servers exchange a message over the database behind a silent host, so queries and LISTEN both reach it.
async fn assert_works(host: SilentHost) {
    let database = Database::create().await;
    // The silent host may use up neither timeout: the one of its own, and the one of a request.
    let url = format!("{}?connect_timeout=10", host.before(&database));
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("RIDEWIRE_DATABASE_TIMEOUT", "10s"),
        // Only a notification makes the other server read the log.
        ("RIDEWIRE_FALLBACK_POLL", "1h"),
    ];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride").await;
    let mut stream = two.live_stream(&driver.on(&two), "ride").await;
    rider.send("ride", "to another server").await;
    assert_eq!(stream.find("message:new").await.data["content"], "to another server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_drops_connections_does_not_hide_the_next_one() {
    assert_works(SilentHost::dropping().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_accepts_and_stays_silent_does_not_hide_the_next_one() {
    assert_works(SilentHost::accepting()).await;
}
