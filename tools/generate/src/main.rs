//! Makes the Rust of `proto/`, without `protoc`: the messages, and the descriptors that reflection
//! serves. Run by `make generate` in the top folder.

use std::fs;
use std::path::Path;

use prost::Message;

const FILES: [&str; 6] = ["common", "admin", "auth", "token", "account", "audit"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let proto = root.join("proto");
    let out = root.join("src/wire/proto");
    let files: Vec<_> = FILES.iter().map(|name| proto.join(format!("mcias/v1/{name}.proto"))).collect();
    let descriptors = protox::compile(&files, [&proto])?;
    fs::create_dir_all(&out)?;
    // What reflection serves needs no comments.
    let mut served = descriptors.clone();
    served.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(proto.join("descriptors.bin"), served.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(false)
        // Some hold secrets.
        .skip_debug(["."])
        .out_dir(&out)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    let made = out.join("mcias.v1.rs");
    let text = fs::read_to_string(&made)?;
    let first = "//! Made by `make generate` from proto/mcias/v1: not to be changed by hand.\n\n";
    fs::write(out.join("v1.rs"), format!("{first}#![allow(missing_docs, clippy::all)]\n\n{text}"))?;
    fs::remove_file(made)?;
    Ok(())
}
