//! The appliance under test: built once, used by all cases.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::host::{self, Failure, Result, program, run};
use crate::http::Server;
use crate::proxy;

/// The suite of the host, from which the appliance's kernel and tools come.
pub const SUITE: &str = "bookworm";

/// What `castiron appliance` made.
#[derive(Clone, Debug)]
pub struct Appliance {
    pub folder: PathBuf,
}

impl Appliance {
    /// Builds it below `target/harness/NAME`, its packages through the caching mirror on `server`.
    pub fn build(name: &str, server: &Server, arguments: &[&str]) -> Result<Self> {
        let folder = host::fresh(name)?;
        let mut command = Command::new(program("castiron")?);
        command.args(["appliance", "--board", "x86_64", "--suite", SUITE, "--mirror"]);
        command.arg(format!("{}/debian", server.url())).args(arguments).arg("-o").arg(&folder);
        command.current_dir(host::top());
        run(&mut command)?;
        Ok(Self { folder })
    }

    /// The one that the cases of a test run share.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Appliance, String>> = OnceLock::new();
        let make = || {
            let server = Server::start()?;
            proxy::serve(&server, SUITE)?;
            Self::build("appliance", &server, &["--kernel-package", "linux-image-cloud-amd64", "--no-firmware"])
        };
        SHARED.get_or_init(|| make().map_err(|failure| failure.0)).as_ref().map_err(|text| Failure(text.clone()))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
