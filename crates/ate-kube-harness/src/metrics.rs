//! What the API server has been asked, by its own count.

use crate::Cluster;

/// Verbs that change something.
const WRITES: [&str; 7] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION", "CONNECT"];

impl Cluster {
    /// Requests so far that write, whoever sent them. From `apiserver_request_total`.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub async fn writes(&self) -> Result<u64, String> {
        let request = http::Request::get("/metrics").body(Vec::new()).map_err(|e| e.to_string())?;
        let text = self.admin().request_text(request).await.map_err(|e| e.to_string())?;
        let counted = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let mut any = false;
        let mut writes = 0.0;
        for line in counted {
            any = true;
            let (labels, value) = line.rsplit_once(' ').unwrap_or((line, "0"));
            if WRITES.iter().any(|verb| labels.contains(&format!("verb=\"{verb}\""))) {
                writes += value.parse::<f64>().unwrap_or(0.0);
            }
        }
        if any { Ok(writes as u64) } else { Err("the API server counts no requests".to_owned()) }
    }
}
