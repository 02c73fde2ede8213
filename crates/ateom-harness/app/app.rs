//! The actor of these tests: a small HTTP server that counts in memory and does what it is told.
//!
//! `app PORT [NAME]`. Paths: `/` counts; `/read/PATH`, `/write/PATH/TEXT`, `/env/NAME`, `/host`, `/log/COUNT`,
//! `/fill/MIB`, `/touch/ROUND`, `/sum`, `/random`, `/now`, `/flood`, `/disk/PATH`, `/device/PATH/MAJOR/MINOR`,
//! `/connect/ADDRESS`, `/exit/CODE`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().and_then(|p| p.parse().ok()).unwrap_or(8080);
    let name = args.next().unwrap_or_default();
    println!("listening on {port}");
    eprintln!("a word to stderr");
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("bind");
    let mut count = 0u64;
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut connections = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            continue;
        }
        let mut header = String::new();
        while reader.read_line(&mut header).is_ok_and(|n| n > 2) {
            header.clear();
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let parts: Vec<&str> = path.splitn(3, '/').skip(1).collect();
        let rest = parts.get(1).copied().unwrap_or("");
        let answer = match parts[0] {
            "" => {
                count += 1;
                format!("{name}{count}")
            }
            "readyz" => "ready".into(),
            "read" => std::fs::read_to_string(format!("/{rest}")).unwrap_or_else(|e| format!("error: {e}")),
            "write" => {
                let (file, text) = rest.rsplit_once('/').unwrap_or((rest, ""));
                match std::fs::write(format!("/{file}"), text) {
                    Ok(()) => "written".into(),
                    Err(e) => format!("error: {e}"),
                }
            }
            "env" => std::env::var(rest).unwrap_or_default(),
            "host" => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
            "log" => {
                let line = "x".repeat(1000);
                for _ in 0..rest.parse().unwrap_or(1u32) {
                    println!("{line}");
                }
                "logged".into()
            }
            "fill" => {
                let size = rest.parse::<usize>().unwrap_or(1) << 20;
                held.push((0..size).map(|i| (i / 3 % 251) as u8).collect());
                held.len().to_string()
            }
            "touch" => {
                // 16 pages of each block, others every time.
                let round = rest.parse::<usize>().unwrap_or(0);
                for block in &mut held {
                    let len = block.len();
                    (0..16).for_each(|page| block[(round * 16 + page) * 4096 % len] = round as u8 ^ 0xa5);
                }
                "touched".into()
            }
            "sum" => {
                let mix = |sum: u64, &byte: &u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                format!("{:x}", held.iter().flatten().fold(0xcbf2_9ce4_8422_2325, mix))
            }
            "random" => random(),
            "now" => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.map(|now| now.as_millis().to_string()).unwrap_or_default()
            }
            "flood" => {
                std::thread::spawn(|| loop {
                    println!("{}", "flood ".repeat(50));
                });
                "flooding".into()
            }
            "disk" => {
                let piece = vec![7; 1 << 20];
                let full = std::fs::File::create(format!("/{rest}")).and_then(|mut file| loop {
                    file.write_all(&piece)?;
                });
                let why: Result<(), _> = full;
                why.map_or_else(|e| format!("{:?}", e.kind()), |()| String::new())
            }
            "device" => device(rest),
            "connect" => match TcpStream::connect(rest) {
                Ok(mut c) => {
                    let mut greeting = [0u8; 5];
                    let read = c.read_exact(&mut greeting);
                    connections.push(c);
                    format!("{read:?}")
                }
                Err(e) => format!("error: {e}"),
            },
            "exit" => std::process::exit(rest.parse().unwrap_or(0)),
            _ => "?".into(),
        };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        // The client closes first: what is closed here first would linger for a minute.
        let _ = reader.read(&mut [0]);
    }
}

extern "C" {
    fn getrandom(buffer: *mut u8, len: usize, flags: u32) -> isize;
    fn mknod(path: *const u8, mode: u32, device: u64) -> i32;
}

/// Straight from the kernel.
fn random() -> String {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is as long as is said.
    let got = unsafe { getrandom(bytes.as_mut_ptr(), bytes.len(), 0) };
    assert_eq!(got, 16);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a character device and a block device of these numbers, and opens them.
fn device(path: &str) -> String {
    let words: Vec<&str> = path.rsplitn(3, '/').collect();
    let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok()).unwrap_or_default();
    let (minor, major) = (number(0), number(1));
    let mut said = Vec::new();
    for (kind, format) in [("char", 0o020_000), ("block", 0o060_000)] {
        let path = format!("/{}.{kind}", words.get(2).unwrap_or(&""));
        let name = std::ffi::CString::new(path.clone()).expect("a path");
        // SAFETY: the name ends with a zero and lives longer than the call.
        let made = unsafe { mknod(name.as_ptr().cast(), format | 0o666, major << 8 | minor) };
        let made = if made == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
        let opened = made.and_then(|()| std::fs::OpenOptions::new().read(true).write(true).open(path));
        said.push(format!("{kind} {}", opened.map_or_else(|e| format!("{:?}", e.kind()), |_| "OPEN".into())));
    }
    said.join(", ")
}
