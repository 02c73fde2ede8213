//! A way to the server that can be cut, and that can stand still without anybody being told.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Forwards connections to a port of loopback, each byte as it comes.
pub struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Connections are taken and ended at once.
    down: bool,
    /// Connections are taken, and nothing comes through.
    stalled: bool,
    connections: Vec<Connection>,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    gate: Arc<Gate>,
}

struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Proxy {
    /// # Panics
    /// When loopback has no port left.
    pub fn to(server: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(Mutex::new(State::default()));
        let proxy = Proxy { port, state: state.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Whoever is not let through sees a connection that ends.
                let _ = forward(&state, client, server);
            }
        });
        proxy
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections; new ones are taken.
    pub fn cut(&self) {
        for connection in lock(&self.state).connections.drain(..) {
            let _ = connection.client.shutdown(Shutdown::Both);
            let _ = connection.server.shutdown(Shutdown::Both);
        }
    }

    /// Ends all connections; new ones end at once, until [`up`](Proxy::up).
    pub fn down(&self) {
        lock(&self.state).down = true;
        self.cut();
    }

    pub fn up(&self) {
        lock(&self.state).down = false;
    }

    /// Nothing is forwarded any more on the connections there are, and nobody is told. What was sent arrives when it is
    /// released. New connections are not concerned.
    pub fn hold(&self) {
        lock(&self.state).connections.iter().for_each(|c| c.gate.set(true));
    }

    /// Nothing is forwarded any more, on new connections neither: whoever is behind it stands still, for the server.
    pub fn stall(&self) {
        lock(&self.state).stalled = true;
        self.hold();
    }

    /// The clients lose the connections that are held; what they sent still arrives when it is released.
    pub fn cut_clients(&self) {
        for connection in &lock(&self.state).connections {
            let _ = connection.client.shutdown(Shutdown::Both);
        }
    }

    pub fn release(&self) {
        lock(&self.state).stalled = false;
        lock(&self.state).connections.iter().for_each(|c| c.gate.set(false));
    }
}

impl Gate {
    fn set(&self, closed: bool) {
        *lock(&self.closed) = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let open = self.changed.wait_while(lock(&self.closed), |closed| *closed);
        drop(open.unwrap_or_else(PoisonError::into_inner));
    }
}

fn forward(state: &Mutex<State>, client: TcpStream, server: u16) -> std::io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut state = lock(state);
    if state.down {
        return Ok(());
    }
    let gate = Arc::new(Gate { closed: Mutex::new(state.stalled), changed: Condvar::new() });
    let connection = Connection { client: client.try_clone()?, server: server.try_clone()?, gate };
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let gate = connection.gate.clone();
        std::thread::spawn(move || copy(&gate, from, to));
    }
    state.connections.push(connection);
    Ok(())
}

fn copy(gate: &Gate, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        gate.pass();
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    // That one side ended is as little known on the other as what it said.
    gate.pass();
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
