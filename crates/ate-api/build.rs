//! Compiles the protos without protoc; the descriptor set is kept for gRPC reflection.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let protos = ["ateapi", "choices", "resources", "revocations", "rollouts", "tokens", "usage"]
        .map(|name| format!("proto/{name}.proto"));
    let files = protox::compile(protos, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
