//! One file per instruction: its accounts, in the published order, then what it does.

mod claim;
mod clean;
mod complete;
mod delist;
mod end;
mod extend;
mod finish;
mod list;
mod open;
mod quit;
mod recover;
mod stop;
mod work;

pub use claim::*;
pub use clean::*;
pub use complete::*;
pub use delist::*;
pub use end::*;
pub use extend::*;
pub use finish::*;
pub use list::*;
pub use open::*;
pub use quit::*;
pub use recover::*;
pub use stop::*;
pub use work::*;
