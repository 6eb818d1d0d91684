//! What is shipped as data: boards and distributions now; elements and kernel fragments beside them.
//!
//! Nothing here knows a board or a distribution by name: a board is a folder with a `board.toml` and a
//! distribution is a file, listed once in [`BOARDS`] or [`DISTRIBUTIONS`] so that both programs carry them.

pub mod board;
pub mod distribution;

use thiserror::Error;

pub use board::{Bios, Board, BoardError, Efi, Firmware, Grub, ModuleEntry, PackageFile};
pub use distribution::Distribution;

const BOARDS: &[(&str, &str)] =
    &[("board-support/x86_64/board.toml", include_str!("../../../board-support/x86_64/board.toml"))];
const DISTRIBUTIONS: &[(&str, &str)] =
    &[("distributions/debian.toml", include_str!("../../../distributions/debian.toml"))];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    pub boards: Vec<Board>,
    pub distributions: Vec<Distribution>,
}

#[derive(Debug, Error)]
pub enum CatalogueError {
    #[error(transparent)]
    Board(#[from] BoardError),
    #[error("{file} is not a distribution")]
    Distribution {
        file: &'static str,
        #[source]
        cause: Box<toml::de::Error>,
    },
}

impl Catalogue {
    /// What this castiron was built with.
    pub fn shipped() -> Result<Self, CatalogueError> {
        let boards = BOARDS.iter().map(|(file, text)| Board::parse(file, text));
        let distributions = DISTRIBUTIONS.iter().map(|(file, text)| {
            toml::from_str(text).map_err(|cause| CatalogueError::Distribution { file, cause: Box::new(cause) })
        });
        Ok(Self { boards: boards.collect::<Result<_, _>>()?, distributions: distributions.collect::<Result<_, _>>()? })
    }

    /// The first board of an architecture in Debian's words.
    pub fn board_for(&self, architecture: &str) -> Option<&Board> {
        self.boards.iter().find(|board| board.arch == architecture)
    }

    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        self.distributions.iter().find(|distribution| distribution.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_read() {
        let catalogue = Catalogue::shipped().unwrap();
        for board in &catalogue.boards {
            assert_eq!(catalogue.board_for(&board.arch), Some(board));
        }
        for distribution in &catalogue.distributions {
            assert!(!distribution.packages.system.is_empty(), "{}", distribution.name);
        }
    }
}
