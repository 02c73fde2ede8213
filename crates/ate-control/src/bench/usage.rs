//! "Who uses this binary", asked over and over: by count and with the first page of names.

use std::time::{Duration, Instant};

use ate_api::{
    Error, Reason,
    v1::{GetUsageRequest, usage_client::UsageClient},
};

use super::{binary, connect};

/// Names in an answer, as the command line asks for them.
const NAMES: u32 = 20;

pub(super) async fn run(url: &str, actors: usize, samples: usize) -> Result<Vec<Duration>, Error> {
    let mut client = UsageClient::new(connect(url).await?);
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let request = GetUsageRequest { digest: binary().to_string(), page_size: NAMES, ..Default::default() };
        let asked = Instant::now();
        let answer = client.get_usage(request).await.map_err(|s| Error::from(&s))?.into_inner();
        times.push(asked.elapsed());
        let suspended: u64 = answer.revisions.iter().map(|r| r.suspended).sum();
        if suspended != actors as u64 || answer.users.len() != NAMES as usize {
            let message = format!("{suspended} of {actors} actors counted, {} named", answer.users.len());
            return Err(Error::new(Reason::Internal, message));
        }
    }
    Ok(times)
}
