//! A command is a value: a program and a list, never a shell line.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::spec::SecretRef;
use crate::units::NodeId;

/// A program of the machine that carries out the plan. The appliance ships exactly these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    MkfsExt4,
    Sh,
}

/// Where a tool comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolSource {
    pub name: &'static str,
    /// The Debian package that has it, for hints and for the appliance.
    pub package: &'static str,
    /// Its path in that package.
    pub path: &'static str,
}

impl Tool {
    pub const ALL: &'static [Self] = &[Self::MkfsExt4, Self::Sh];

    pub fn source(self) -> ToolSource {
        match self {
            Self::MkfsExt4 => ToolSource { name: "mkfs.ext4", package: "e2fsprogs", path: "/sbin/mke2fs" },
            Self::Sh => ToolSource { name: "sh", package: "busybox-static", path: "/bin/busybox" },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    Tool(Tool),
    /// Any other program of that machine: what a config's own commands name.
    Host(String),
    /// A program of the target, run in namespaces of its own below `root`.
    Target {
        root: Utf8PathBuf,
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arg {
    Text(String),
    /// Becomes the device or file where the node lives.
    Node(NodeId),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdin {
    Text(String),
    /// `prefix` and then the secret, so that no argument list shows it.
    Secret {
        prefix: String,
        secret: SecretRef,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cmd {
    pub program: Program,
    pub args: Vec<Arg>,
    pub env: Vec<(String, String)>,
    pub stdin: Option<Stdin>,
}

impl Cmd {
    pub fn new(tool: Tool) -> Self {
        Self::of(Program::Tool(tool))
    }

    pub fn host(program: impl Into<String>) -> Self {
        Self::of(Program::Host(program.into()))
    }

    pub fn target(root: impl Into<Utf8PathBuf>, name: impl Into<String>) -> Self {
        Self::of(Program::Target { root: root.into(), name: name.into() })
    }

    fn of(program: Program) -> Self {
        Self { program, args: Vec::new(), env: Vec::new(), stdin: None }
    }

    pub fn arg(mut self, text: impl Into<String>) -> Self {
        self.args.push(Arg::Text(text.into()));
        self
    }

    pub fn args<T: Into<String>>(self, texts: impl IntoIterator<Item = T>) -> Self {
        texts.into_iter().fold(self, Self::arg)
    }

    /// An option next to its value.
    pub fn opt(self, option: &str, value: impl Into<String>) -> Self {
        self.arg(option).arg(value)
    }

    pub fn node(mut self, node: &NodeId) -> Self {
        self.args.push(Arg::Node(node.clone()));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn stdin(self, stdin: Stdin) -> Self {
        Self { stdin: Some(stdin), ..self }
    }

    pub fn name(&self) -> &str {
        match &self.program {
            Program::Tool(tool) => tool.source().name,
            Program::Host(name) | Program::Target { name, .. } => name,
        }
    }
}

impl std::fmt::Display for Cmd {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())?;
        for arg in &self.args {
            match arg {
                Arg::Text(text) if text.is_empty() || text.contains([' ', '\n', '"', '\'']) => {
                    write!(out, " {text:?}")?
                }
                Arg::Text(text) => write!(out, " {text}")?,
                Arg::Node(node) => write!(out, " <{node}>")?,
            }
        }
        Ok(())
    }
}
