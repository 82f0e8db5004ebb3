//! The size limit of a page: the pages of history, polls and lists are bounded in bytes.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::domain::Error;

/// The approximate limit on the items of a page, in bytes.
pub(super) const PAGE_BYTES: usize = 256 * 1024;

/// Serializes items up to the size limit, but at least one. Also returns whether items were left out.
pub(super) fn fill_page<T: Serialize>(items: impl IntoIterator<Item = T>) -> Result<(Vec<Box<RawValue>>, bool), Error> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for item in items {
        let item = to_raw_value(&item).map_err(|_| Error::Internal)?;
        bytes += item.get().len();
        if bytes > PAGE_BYTES && !page.is_empty() {
            return Ok((page, true));
        }
        page.push(item);
    }
    Ok((page, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_first_items_that_fit_and_at_least_one() {
        let sizes = |sizes: &[usize]| {
            let (page, is_truncated) = fill_page(sizes.iter().map(|size| "x".repeat(*size))).unwrap();
            (page.len(), is_truncated)
        };
        assert_eq!(sizes(&[]), (0, false));
        assert_eq!(sizes(&[PAGE_BYTES * 2]), (1, false));
        assert_eq!(sizes(&[PAGE_BYTES * 2, 1]), (1, true));
        assert_eq!(sizes(&[PAGE_BYTES / 2, PAGE_BYTES / 4, PAGE_BYTES / 2, 1]), (2, true));
    }
}
