//! What a registry may answer, from a server that says exactly that.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::*;

const MAX: usize = 1 << 20;

/// Answers each request by its head. The rest of the answer repeats without end.
fn serve(answer: impl Fn(&str) -> (String, bool) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // The client is gone when it has heard enough.
            let _ = one(stream, &answer, &count);
        }
    });
    (address, sent)
}

fn one(mut stream: TcpStream, answer: &impl Fn(&str) -> (String, bool), sent: &AtomicUsize) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let (text, endless) = answer(&String::from_utf8_lossy(&head));
    stream.write_all(text.as_bytes())?;
    if !endless {
        return Ok(());
    }
    loop {
        stream.write_all(&[b' '; 64 << 10])?;
        sent.fetch_add(64 << 10, SeqCst);
    }
}

async fn http(address: &str) -> Http {
    let reference = format!("{address}/team/app:v1").parse().unwrap();
    Http::new(&reference).await.unwrap_or_else(|_| panic!("a client"))
}

fn whole_body(status: &str, headers: &str, body: &str) -> (String, bool) {
    (format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()), false)
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off_at_the_cap_wherever_it_comes_from() {
    const ENDLESS: &str = "\r\nconnection: close\r\n\r\n";
    let manifest = |_: &str| (format!("HTTP/1.1 200 OK{ENDLESS}"), true);
    let refusal = |_: &str| (format!("HTTP/1.1 500 Oops{ENDLESS}"), true);
    let (address, sent) = serve(manifest);
    let answer = http(&address).await.document("manifests/v1", "*/*", MAX).await;
    assert!(matches!(answer, Err(Failure::TooLarge(MAX))));
    let heard_at_most = MAX + (16 << 20); // what is on the way in sockets
    assert!(sent.load(SeqCst) < heard_at_most, "{sent:?}");

    let (address, sent) = serve(refusal);
    let answer = http(&address).await.document("manifests/v1", "*/*", MAX).await;
    assert!(matches!(answer, Err(Failure::Unavailable(why)) if why.contains("500") && why.len() < 1000));
    assert!(sent.load(SeqCst) < heard_at_most, "{sent:?}");

    let (tokens, sent) = serve(manifest);
    let (address, _) = serve(move |_| {
        whole_body("401 Unauthorized", &format!("www-authenticate: Bearer realm=\"http://{tokens}/t\"\r\n"), "")
    });
    let answer = http(&address).await.document("manifests/v1", "*/*", MAX).await;
    assert!(matches!(answer, Err(Failure::TooLarge(MAX_TOKEN))));
    assert!(sent.load(SeqCst) < heard_at_most, "{sent:?}");
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says_and_shown_from_then_on() {
    let (tokens, _) = serve(|head| match head.contains("scope=repository%3Ateam%2Fapp%3Apull&service=here") {
        true => whole_body("200 OK", "", r#"{"access_token":"secret"}"#),
        false => whole_body("400 Bad Request", "", head),
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let (address, _) = serve(move |head| {
        count.fetch_add(1, SeqCst);
        match head.to_ascii_lowercase().contains("authorization: bearer secret") {
            true => whole_body("200 OK", "", "the manifest"),
            false => {
                let challenge = format!("Bearer realm=\"http://{tokens}/t\",service=\"here\",scope=\"x\"");
                whole_body("401 Unauthorized", &format!("www-authenticate: {challenge}\r\n"), "")
            }
        }
    });
    let http = http(&address).await;
    for requests in [2, 3] {
        let answer = http.document("manifests/v1", "*/*", MAX).await;
        assert_eq!(answer.unwrap_or_else(|_| panic!("refused")), b"the manifest");
        assert_eq!(asked.load(SeqCst), requests);
    }
}

#[tokio::test]
async fn a_registry_that_does_not_have_it_is_told_apart_from_one_that_refuses() {
    let (address, _) = serve(|_| whole_body("404 Not Found", "", "{}"));
    assert!(matches!(http(&address).await.document("manifests/v1", "*/*", MAX).await, Err(Failure::NotFound(_))));
    // Wants a password, and there is none.
    let (address, _) =
        serve(|_| whole_body("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", "who are you"));
    let answer = http(&address).await.document("manifests/v1", "*/*", MAX).await;
    assert!(matches!(answer, Err(Failure::Unavailable(why)) if why.contains("401") && why.contains("who are you")));
}
