//! Compiles every contract with protox (pure Rust, no protoc) into OUT_DIR: Rust types, clients and
//! servers, and one descriptor set with all options and comments.
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = vec![PathBuf::from("google/api/httpbody.proto")];
    for folder in ["weft", "google"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    proto_files(Path::new("weft"), &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets OUT_DIR")?;
    // Encoded by protox itself: prost-types' FileDescriptorSet has no place for our options.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let mut build = tonic_prost_build::configure();
    for name in ["Struct", "Value", "ListValue"] {
        build = build.extern_path(format!(".google.protobuf.{name}"), format!("crate::json::{name}"));
    }
    build.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn proto_files(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
