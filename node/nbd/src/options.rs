//! The data of options, taken apart. Every parser is total: any bytes give a value or [`Malformed`].

use crate::wire::STRING_BYTES_MAX;

/// What is wrong with an option's data, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(&'static str);

/// INFO and GO: an export and what the client wants to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InfoRequest {
    pub(crate) name: String,
    pub(crate) wants: Vec<u16>,
}

/// LIST_META_CONTEXT and SET_META_CONTEXT: an export and names of contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextRequest {
    pub(crate) name: String,
    pub(crate) queries: Vec<String>,
}

impl InfoRequest {
    pub(crate) fn parse(data: &[u8]) -> Result<InfoRequest, Malformed> {
        let mut rest = Rest(data);
        let name = rest.string()?;
        let count = rest.u16()?;
        let wants = (0..count)
            .map(|_| rest.u16())
            .collect::<Result<Vec<u16>, Malformed>>()?;
        rest.end()?;
        Ok(InfoRequest { name, wants })
    }
}

impl ContextRequest {
    pub(crate) fn parse(data: &[u8]) -> Result<ContextRequest, Malformed> {
        let mut rest = Rest(data);
        let name = rest.string()?;
        let count = rest.u32()?;
        // Each query has at least its length: a count that the data can't hold fails before it costs memory.
        if count as usize > rest.0.len() / size_of::<u32>() {
            return Err(Malformed(
                "the option holds fewer queries than it announces",
            ));
        }
        let queries = (0..count)
            .map(|_| rest.string())
            .collect::<Result<Vec<String>, Malformed>>()?;
        rest.end()?;
        Ok(ContextRequest { name, queries })
    }
}

/// EXPORT_NAME: the whole data is the name.
pub(crate) fn parse_name(data: &[u8]) -> Result<String, Malformed> {
    if data.len() > STRING_BYTES_MAX {
        return Err(Malformed("a string is longer than 4096 bytes"));
    }
    match std::str::from_utf8(data) {
        Ok(name) if !name.contains('\0') => Ok(name.to_owned()),
        _ => Err(Malformed("a string is not UTF-8 without NUL")),
    }
}

/// What is not yet parsed.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        let (string, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed("the option ends inside a string"))?;
        self.0 = rest;
        parse_name(string)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed("the option ends too early"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("the option has bytes past its end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = InfoRequest::parse(&data);
            let _ = ContextRequest::parse(&data);
            let _ = parse_name(&data);
        }

        #[test]
        fn what_is_well_formed_comes_back_whole(name in "[a-zé]{0,40}", wants in proptest::collection::vec(any::<u16>(), 0..9),
                queries in proptest::collection::vec("[a-z:]{0,9}", 0..9)) {
            let mut data = string(&name);
            data.extend((wants.len() as u16).to_be_bytes());
            data.extend(wants.iter().flat_map(|want| want.to_be_bytes()));
            prop_assert_eq!(InfoRequest::parse(&data), Ok(InfoRequest { name: name.clone(), wants }));
            for cut in 0..data.len() {
                prop_assert!(InfoRequest::parse(&data[..cut]).is_err());
            }

            let mut data = string(&name);
            data.extend((queries.len() as u32).to_be_bytes());
            data.extend(queries.iter().flat_map(|query| string(query)));
            prop_assert_eq!(ContextRequest::parse(&data), Ok(ContextRequest { name, queries }));
            for cut in 0..data.len() {
                prop_assert!(ContextRequest::parse(&data[..cut]).is_err());
            }
            data.push(0);
            prop_assert!(ContextRequest::parse(&data).is_err());
        }
    }

    #[test]
    fn a_count_that_the_data_cannot_hold_is_refused() {
        let data = [string("a"), u32::MAX.to_be_bytes().to_vec()].concat();
        assert!(ContextRequest::parse(&data).is_err());
    }

    #[test]
    fn a_name_is_short_text_without_nul() {
        assert!(parse_name(&[b'a'; 4096]).is_ok());
        assert!(parse_name(&[b'a'; 4097]).is_err());
        assert!(parse_name(b"a\0b").is_err());
        assert!(parse_name(b"\xff").is_err());
    }
}
