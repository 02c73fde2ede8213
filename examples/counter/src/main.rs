//! The example actor: an HTTP/1.1 server that keeps a counter in memory, so that one can see whether an actor
//! that was suspended came back as it was. Standard library only.
//!
//! | Request | What it does |
//! |---|---|
//! | `/` | counts up; one line `count=N boot=NONCE …` with what `/run/ate` says about the actor |
//! | `/readyz` | 200 |
//! | `/about` | arguments, working directory, user and environment, one per line |
//! | `/file` | GET: contents of `$DATA_DIR/file`; PUT or POST: writes them |
//! | `/grow/MB` | writes so much that does not compress to `$DATA_DIR/large` |
//! | `/fill/MB` | holds so much memory from now on, in place of what it held |
//! | `/sum` | a checksum over the memory it holds |
//! | `/random` | 16 bytes of the kernel's random numbers, in hex |
//! | `/time` | milliseconds since 1970 |
//! | `/kernel` | the release of the kernel it sees |
//! | `/sleep/MS` | answers after so many milliseconds |
//! | `/exit`, `/exit/CODE` | ends the process |
//!
//! Environment: `PORT` (80), `DATA_DIR` (/data), `KEEP_COUNT` (unset): keeps the count in `$DATA_DIR/count` instead of
//! in memory; `HEAP_MB` (0): memory touched at the start, half of it random and half of it a pattern, so that it
//! compresses about as well as the memory of real programs.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Read, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where the node puts what an actor may know about itself.
const IDENTITY_DIR: &str = "/run/ate";
/// Identity files are names and numbers; anything larger is not printed.
const MAX_IDENTITY_FILE: u64 = 256;
/// Largest body `/file` takes, and largest head of a request.
const MAX_BODY: usize = 1 << 20;
const MAX_HEAD: u64 = 64 << 10;
/// Threads that wait for a connection from the beginning.
const RESERVE: usize = 3;

struct State {
    count: Mutex<u64>,
    /// Drawn once when the process starts: the same nonce means the same process, however often it moved.
    boot: u64,
    data_dir: String,
    keep_count: bool,
    /// Held so that it is part of every snapshot.
    heap: Mutex<Vec<u8>>,
}

impl State {
    /// One more, written down before anybody hears of it.
    fn count(&self) -> io::Result<u64> {
        let mut count = lock(&self.count);
        let path = format!("{}/count", self.data_dir);
        if self.keep_count && *count == 0 {
            *count = fs::read_to_string(&path).ok().and_then(|kept| kept.trim().parse().ok()).unwrap_or(0);
        }
        *count += 1;
        if self.keep_count {
            fs::write(path, count.to_string())?;
        }
        Ok(*count)
    }
}

/// Nothing here leaves half a value behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
    close: bool,
}

fn main() {
    let number = |name: &str, default: usize| env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let state = Arc::new(State {
        count: Mutex::new(0),
        boot,
        data_dir: env::var("DATA_DIR").unwrap_or_else(|_| "/data".to_owned()),
        keep_count: env::var_os("KEEP_COUNT").is_some(),
        heap: Mutex::new(heap(number("HEAP_MB", 0), boot)),
    });
    let port = number("PORT", 80) as u16;
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(e) => {
            eprintln!("cannot listen on port {port}: {e}");
            std::process::exit(1);
        }
    };
    println!("listening on port {port}, boot {boot:016x}");
    let door = Arc::new(Door { listener, state, waiting: AtomicUsize::new(0) });
    (1..RESERVE).for_each(|_| door.wait_in_a_thread());
    door.waiting.fetch_add(1, Ordering::SeqCst);
    door.serve();
}

/// Where connections come in. Threads wait there in reserve: the first request to an actor that was resumed a moment
/// ago is not the time to make one.
struct Door {
    listener: TcpListener,
    state: Arc<State>,
    waiting: AtomicUsize,
}

impl Door {
    fn wait_in_a_thread(self: &Arc<Self>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let door = Arc::clone(self);
        thread::spawn(move || door.serve());
    }

    /// One connection after the other, for ever.
    fn serve(self: &Arc<Self>) {
        loop {
            let accepted = self.listener.accept();
            if self.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.wait_in_a_thread();
            }
            if let Ok((stream, _)) = accepted {
                // A client that goes away is no event worth a word.
                let _ = serve(stream, &self.state);
            }
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Touches every page; pages alternate between random bytes and one repeated byte.
fn heap(megabytes: usize, seed: u64) -> Vec<u8> {
    const PAGE: usize = 4096;
    let mut heap = vec![0u8; megabytes << 20];
    let mut x = seed | 1;
    for (i, page) in heap.chunks_mut(PAGE).enumerate() {
        if i % 2 == 0 {
            page.fill(i as u8 | 1);
            continue;
        }
        for word in page.chunks_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.copy_from_slice(&x.to_le_bytes()[..word.len()]);
        }
    }
    heap
}

/// FNV-1a, a word at a time: any change of any page shows.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn grow(megabytes: usize, data_dir: &str) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    let mut random = fs::File::open("/dev/urandom")?.take((megabytes as u64) << 20);
    io::copy(&mut random, &mut fs::File::create(format!("{data_dir}/large"))?).map(drop)
}

fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Serves one connection until the client closes it or asks to.
fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input)? {
        let (status, body) = answer(&request, state);
        let connection = if request.close { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n",
            body.len()
        );
        let mut whole = head.into_bytes();
        whole.extend_from_slice(&body);
        out.write_all(&whole)?;
        if request.close {
            break;
        }
    }
    Ok(())
}

fn read_request(input: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut head = input.by_ref().take(MAX_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or("/").to_owned();
    let mut close = line.trim_end().ends_with("HTTP/1.0");
    let mut length = 0usize;
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(usize::MAX),
            "connection" if value.trim().eq_ignore_ascii_case("close") => close = true,
            _ => {}
        }
    }
    if length > MAX_BODY {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some(Request { method, path, body, close }))
}

fn answer(request: &Request, state: &State) -> (&'static str, Vec<u8>) {
    let ok = |text: String| ("200 OK", text.into_bytes());
    let path = request.path.split('?').next().unwrap_or("/");
    if let Some(ms) = path.strip_prefix("/sleep/").and_then(|ms| ms.parse().ok()) {
        thread::sleep(Duration::from_millis(ms));
        return ok("slept\n".to_owned());
    }
    if let Some(code) = path.strip_prefix("/exit") {
        println!("asked to end");
        std::process::exit(code.trim_start_matches('/').parse().unwrap_or(0));
    }
    if let Some(megabytes) = path.strip_prefix("/grow/").and_then(|mb| mb.parse().ok()) {
        return match grow(megabytes, &state.data_dir) {
            Ok(()) => ok("written\n".to_owned()),
            Err(e) => ("500 Internal Server Error", format!("cannot grow: {e}\n").into_bytes()),
        };
    }
    if let Some(megabytes) = path.strip_prefix("/fill/").and_then(|mb| mb.parse().ok()) {
        let new = heap(megabytes, state.boot);
        *lock(&state.heap) = new;
        return ok("filled\n".to_owned());
    }
    match path {
        "/" => match state.count() {
            Ok(count) => {
                println!("request {count}");
                ok(format!("count={count} boot={:016x}{}\n", state.boot, identity()))
            }
            Err(e) => ("500 Internal Server Error", format!("cannot keep the count: {e}\n").into_bytes()),
        },
        "/sum" => ok(format!("{:016x}\n", checksum(&lock(&state.heap)))),
        "/random" => match random() {
            Ok(bytes) => ok(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n"),
            Err(e) => ("500 Internal Server Error", format!("no random numbers: {e}\n").into_bytes()),
        },
        "/time" => ok(format!("{}\n", SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis()))),
        "/kernel" => {
            let version = fs::read_to_string("/proc/version").unwrap_or_default();
            ok(format!("{}\n", version.split_whitespace().nth(2).unwrap_or("unknown")))
        }
        "/readyz" => ok("ready\n".to_owned()),
        "/about" => ok(about()),
        "/file" => file(request, &state.data_dir),
        _ => ("404 Not Found", b"no such path\n".to_vec()),
    }
}

/// What `/run/ate` holds, as ` name=value` for each small file, by name.
fn identity() -> String {
    let Ok(entries) = fs::read_dir(IDENTITY_DIR) else { return String::new() };
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    files.sort();
    let mut out = String::new();
    for path in files {
        let small = fs::metadata(&path).is_ok_and(|m| m.len() <= MAX_IDENTITY_FILE);
        let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|_| small) else { continue };
        let Ok(value) = fs::read_to_string(&path) else { continue };
        let _ = write!(out, " {name}={}", value.trim());
    }
    out
}

fn about() -> String {
    let mut out = String::new();
    for arg in env::args() {
        let _ = writeln!(out, "arg {arg}");
    }
    let cwd = env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
    let _ = writeln!(out, "cwd {cwd}");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|l| l.starts_with("Uid:") || l.starts_with("Gid:")) {
        let _ = writeln!(out, "{}", line.split_whitespace().take(2).collect::<Vec<_>>().join(" ").to_lowercase());
    }
    for (name, value) in env::vars() {
        let _ = writeln!(out, "env {name}={value}");
    }
    out
}

fn file(request: &Request, data_dir: &str) -> (&'static str, Vec<u8>) {
    let path = format!("{data_dir}/file");
    let done = match request.method.as_str() {
        "PUT" | "POST" => {
            fs::create_dir_all(data_dir).and_then(|()| fs::write(&path, &request.body)).map(|()| b"written\n".to_vec())
        }
        _ => fs::read(&path),
    };
    match done {
        Ok(body) => ("200 OK", body),
        Err(e) if e.kind() == io::ErrorKind::NotFound => ("404 Not Found", b"nothing written yet\n".to_vec()),
        Err(e) => ("500 Internal Server Error", format!("{path}: {e}\n").into_bytes()),
    }
}
