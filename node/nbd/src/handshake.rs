//! The fixed newstyle handshake: from the greeting to an open export.

use crate::connection::Connection;
use crate::export::{Export, ExportInfo, Exports, PAYLOAD_BYTES_MAX, Refusal, RefusalKind};
use crate::inbound::Inbound;
use crate::options::{ContextRequest, InfoRequest, Malformed, parse_name};
use crate::request::Rules;
use crate::server::Limits;
use crate::wire::{
    self, bounded, handshake_flag, info, meta_context, option, option_reply, transmission_flag,
};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes of an option's data that are looked at.
const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Bytes of an option's data that are thrown away to keep the connection.
const OPTION_DISCARDED_BYTES_MAX: u32 = 1 << 20;
/// Options of one connection at most: what a client asks once for each of very many exports.
const OPTIONS_MAX: u32 = 16_384;

/// The outcome of a handshake: what the transmission phase needs.
pub(crate) struct Agreed {
    pub(crate) name: String,
    pub(crate) export: Arc<dyn Export>,
    pub(crate) rules: Rules,
}

/// How a handshake ends that leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeEnd {
    #[error("the client left")]
    Left,
    #[error("{0}")]
    Nonsense(&'static str),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("export refused: {0}")]
    Refused(String),
    #[error("no progress in time")]
    TooSlow,
    #[error("{0}")]
    Closed(String),
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
}

/// Greets the client and answers its options until one opens an export.
pub(crate) async fn run<R, W>(
    inbound: &mut Inbound<R>,
    write: &mut W,
    exports: &dyn Exports,
    limits: &Limits,
    connection: &Connection,
) -> Result<Agreed, HandshakeEnd>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut handshake = Handshake {
        inbound,
        write,
        exports,
        limits,
        connection,
        no_zeroes: false,
        structured: false,
        allocation_of: None,
        replies: Vec::new(),
    };
    let fixed = handshake.greet().await?;
    for _ in 0..OPTIONS_MAX {
        let (number, data) = handshake.read_option().await?;
        if !fixed && number != option::EXPORT_NAME {
            return Err(HandshakeEnd::Nonsense("options without the fixed newstyle"));
        }
        let agreed = match data {
            Some(data) => handshake.on_option(number, &data).await?,
            None => {
                handshake.refuse(number, option_reply::ERR_TOO_BIG, "the option is too long");
                None
            }
        };
        if let Some(agreed) = agreed {
            return Ok(agreed);
        }
        handshake.send().await?;
    }
    Err(HandshakeEnd::Nonsense("too many options"))
}

struct Handshake<'a, R, W> {
    inbound: &'a mut Inbound<R>,
    write: &'a mut W,
    exports: &'a dyn Exports,
    limits: &'a Limits,
    connection: &'a Connection,
    no_zeroes: bool,
    structured: bool,
    /// The export for which base:allocation was chosen last.
    allocation_of: Option<String>,
    /// What is to be sent next.
    replies: Vec<u8>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Handshake<'_, R, W> {
    /// Both sides' flags. Gives whether the client knows the fixed newstyle.
    async fn greet(&mut self) -> Result<bool, HandshakeEnd> {
        self.replies.extend(wire::NBDMAGIC.to_be_bytes());
        self.replies.extend(wire::IHAVEOPT.to_be_bytes());
        self.replies
            .extend((handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES).to_be_bytes());
        self.send().await?;
        let flags = match timeout(self.limits.handshake, self.inbound.header::<4>()).await {
            Err(_) => return Err(HandshakeEnd::TooSlow),
            Ok(header) => u32::from_be_bytes(header?.ok_or(HandshakeEnd::Left)?),
        };
        let known = u32::from(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES);
        if flags & !known != 0 {
            return Err(HandshakeEnd::Nonsense("unknown client flags"));
        }
        self.no_zeroes = flags & u32::from(handshake_flag::NO_ZEROES) != 0;
        Ok(flags & u32::from(handshake_flag::FIXED_NEWSTYLE) != 0)
    }

    /// The next option's number and data; no data when it was too long and thrown away.
    async fn read_option(&mut self) -> Result<(u32, Option<Vec<u8>>), HandshakeEnd> {
        match timeout(self.limits.handshake, self.read_option_untimed()).await {
            Err(_) => Err(HandshakeEnd::TooSlow),
            Ok(option) => option,
        }
    }

    async fn read_option_untimed(&mut self) -> Result<(u32, Option<Vec<u8>>), HandshakeEnd> {
        let magic: [u8; 8] = self.inbound.header().await?.ok_or(HandshakeEnd::Left)?;
        if u64::from_be_bytes(magic) != wire::IHAVEOPT {
            return Err(HandshakeEnd::Nonsense("an option without its magic"));
        }
        let number = u32::from_be_bytes(self.inbound.header().await?.ok_or(HandshakeEnd::Left)?);
        let length = u32::from_be_bytes(self.inbound.header().await?.ok_or(HandshakeEnd::Left)?);
        if length > OPTION_DISCARDED_BYTES_MAX {
            return Err(HandshakeEnd::Nonsense("an option is far too long"));
        }
        if length > OPTION_BYTES_MAX {
            self.inbound.discard(u64::from(length)).await?;
            return Ok((number, None));
        }
        Ok((
            number,
            Some(self.inbound.payload(length as usize).await?.to_vec()),
        ))
    }

    async fn on_option(
        &mut self,
        number: u32,
        data: &[u8],
    ) -> Result<Option<Agreed>, HandshakeEnd> {
        match number {
            option::EXPORT_NAME => return self.on_export_name(data).await.map(Some),
            option::GO => return self.on_go(data).await,
            option::INFO => self.on_info(data).await?,
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.on_meta_context(number, data).await?
            }
            option::ABORT => {
                self.reply(number, option_reply::ACK, &[]);
                self.send().await?;
                return Err(HandshakeEnd::Left);
            }
            option::LIST | option::STRUCTURED_REPLY | option::STARTTLS if !data.is_empty() => {
                self.refuse(number, option_reply::ERR_INVALID, "this option has no data");
            }
            option::LIST => self.on_list(),
            option::STRUCTURED_REPLY => {
                self.structured = true;
                self.reply(number, option_reply::ACK, &[]);
            }
            option::STARTTLS => {
                self.refuse(number, option_reply::ERR_POLICY, "this server has no TLS")
            }
            _ => self.refuse(number, option_reply::ERR_UNSUP, "unknown option"),
        }
        Ok(None)
    }

    fn on_list(&mut self) {
        for entry in self.exports.list() {
            let (name, description) = (bounded(&entry.name), bounded(&entry.description));
            let data = [
                &(name.len() as u32).to_be_bytes(),
                name.as_bytes(),
                description.as_bytes(),
            ]
            .concat();
            self.reply(option::LIST, option_reply::SERVER, &data);
        }
        self.reply(option::LIST, option_reply::ACK, &[]);
    }

    async fn on_info(&mut self, data: &[u8]) -> Result<(), HandshakeEnd> {
        let request = match InfoRequest::parse(data) {
            Ok(request) => request,
            Err(malformed) => {
                self.refuse(
                    option::INFO,
                    option_reply::ERR_INVALID,
                    &malformed.to_string(),
                );
                return Ok(());
            }
        };
        let name = self.resolve(request.name);
        match self.ask(self.exports.info(&name)).await? {
            Ok(info) => self.describe(option::INFO, &name, &info, &request.wants),
            Err(refusal) => self.refuse_export(option::INFO, &refusal),
        }
        Ok(())
    }

    async fn on_go(&mut self, data: &[u8]) -> Result<Option<Agreed>, HandshakeEnd> {
        let request = match InfoRequest::parse(data) {
            Ok(request) => request,
            Err(malformed) => {
                self.refuse(
                    option::GO,
                    option_reply::ERR_INVALID,
                    &malformed.to_string(),
                );
                return Ok(None);
            }
        };
        let name = self.resolve(request.name);
        match self
            .ask(self.exports.open(&name, self.connection.clone()))
            .await?
        {
            Ok(export) => {
                let agreed = self.agree(name, export);
                self.describe(option::GO, &agreed.name, &agreed.rules.info, &request.wants);
                self.send().await?;
                Ok(Some(agreed))
            }
            Err(refusal) => {
                tracing::info!(connection = ?self.connection, name, reason = refusal.message, "NBD export refused");
                self.refuse_export(option::GO, &refusal);
                Ok(None)
            }
        }
    }

    /// The old way to open an export: no refusal can be told, so the connection ends instead.
    async fn on_export_name(&mut self, data: &[u8]) -> Result<Agreed, HandshakeEnd> {
        let name = self.resolve(parse_name(data)?);
        let export = match self
            .ask(self.exports.open(&name, self.connection.clone()))
            .await?
        {
            Ok(export) => export,
            Err(refusal) => return Err(HandshakeEnd::Refused(refusal.message)),
        };
        let agreed = self.agree(name, export);
        self.replies.extend(agreed.rules.info.bytes.to_be_bytes());
        let flags = transmission_flags(&agreed.rules.info, self.structured);
        self.replies.extend(flags.to_be_bytes());
        if !self.no_zeroes {
            self.replies.extend([0; 124]);
        }
        self.send().await?;
        Ok(agreed)
    }

    async fn on_meta_context(&mut self, number: u32, data: &[u8]) -> Result<(), HandshakeEnd> {
        let set = number == option::SET_META_CONTEXT;
        if set {
            // Whatever comes of it, an earlier choice is over.
            self.allocation_of = None;
        }
        if !self.structured {
            self.refuse(
                number,
                option_reply::ERR_INVALID,
                "structured replies come first",
            );
            return Ok(());
        }
        let request = match ContextRequest::parse(data) {
            Ok(request) => request,
            Err(malformed) => {
                self.refuse(number, option_reply::ERR_INVALID, &malformed.to_string());
                return Ok(());
            }
        };
        let name = self.resolve(request.name);
        if let Err(refusal) = self.ask(self.exports.info(&name)).await? {
            self.refuse_export(number, &refusal);
            return Ok(());
        }
        let named = request
            .queries
            .iter()
            .any(|query| query == meta_context::BASE_ALLOCATION);
        let listed = request.queries.is_empty()
            || request
                .queries
                .iter()
                .any(|query| query == meta_context::BASE);
        if named || (listed && !set) {
            let id = if set {
                meta_context::BASE_ALLOCATION_ID
            } else {
                0
            };
            let data = [&id.to_be_bytes(), meta_context::BASE_ALLOCATION.as_bytes()].concat();
            self.reply(number, option_reply::META_CONTEXT, &data);
            if set {
                self.allocation_of = Some(name);
            }
        }
        self.reply(number, option_reply::ACK, &[]);
        Ok(())
    }

    /// The empty name stands for the only export, where there is just one.
    fn resolve(&self, name: String) -> String {
        if !name.is_empty() {
            return name;
        }
        match <[_; 1]>::try_from(self.exports.list()) {
            Ok([only]) => only.name,
            Err(_) => name,
        }
    }

    /// Waits for the owner's answer as long as the client is there.
    async fn ask<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, HandshakeEnd> {
        tokio::select! {
            answer = answer => Ok(answer),
            () = self.inbound.ended() => Err(HandshakeEnd::Left),
        }
    }

    fn agree(&self, name: String, export: Arc<dyn Export>) -> Agreed {
        let info = export.info();
        info.assert_sound();
        let allocation = self.structured && self.allocation_of.as_ref() == Some(&name);
        Agreed {
            name,
            export,
            rules: Rules {
                info,
                structured: self.structured,
                allocation,
            },
        }
    }

    fn describe(&mut self, number: u32, name: &str, export: &ExportInfo, wants: &[u16]) {
        export.assert_sound();
        let flags = transmission_flags(export, self.structured);
        let data = [
            &info::EXPORT.to_be_bytes()[..],
            &export.bytes.to_be_bytes(),
            &flags.to_be_bytes(),
        ]
        .concat();
        self.reply(number, option_reply::INFO, &data);
        for (want, text) in [
            (info::NAME, name),
            (info::DESCRIPTION, bounded(&export.description)),
        ] {
            if wants.contains(&want) && !text.is_empty() {
                self.reply(
                    number,
                    option_reply::INFO,
                    &[&want.to_be_bytes(), text.as_bytes()].concat(),
                );
            }
        }
        let mut data = info::BLOCK_SIZE.to_be_bytes().to_vec();
        for bytes in [
            export.block_bytes_min,
            export.block_bytes_preferred,
            PAYLOAD_BYTES_MAX,
        ] {
            data.extend(bytes.to_be_bytes());
        }
        self.reply(number, option_reply::INFO, &data);
        self.reply(number, option_reply::ACK, &[]);
    }

    fn refuse_export(&mut self, number: u32, refusal: &Refusal) {
        let error = match refusal.kind {
            RefusalKind::Unknown => option_reply::ERR_UNKNOWN,
            RefusalKind::Policy => option_reply::ERR_POLICY,
            RefusalKind::Shutdown => option_reply::ERR_SHUTDOWN,
        };
        self.refuse(number, error, &refusal.message);
    }

    fn refuse(&mut self, number: u32, error: u32, message: &str) {
        self.reply(number, error, bounded(message).as_bytes());
    }

    fn reply(&mut self, number: u32, kind: u32, data: &[u8]) {
        self.replies.extend(wire::OPTION_REPLY_MAGIC.to_be_bytes());
        self.replies.extend(number.to_be_bytes());
        self.replies.extend(kind.to_be_bytes());
        self.replies.extend((data.len() as u32).to_be_bytes());
        self.replies.extend(data);
    }

    async fn send(&mut self) -> Result<(), HandshakeEnd> {
        match timeout(self.limits.handshake, self.write.write_all(&self.replies)).await {
            Err(_) => return Err(HandshakeEnd::TooSlow),
            Ok(written) => written?,
        }
        self.replies.clear();
        Ok(())
    }
}

/// What an export can do, as the protocol says it.
fn transmission_flags(info: &ExportInfo, structured: bool) -> u16 {
    let mut flags = transmission_flag::HAS_FLAGS
        | transmission_flag::SEND_FLUSH
        | transmission_flag::SEND_FUA
        | transmission_flag::CAN_MULTI_CONN
        | transmission_flag::SEND_CACHE;
    flags |= if info.read_only {
        transmission_flag::READ_ONLY
    } else {
        transmission_flag::SEND_TRIM
            | transmission_flag::SEND_WRITE_ZEROES
            | transmission_flag::SEND_FAST_ZERO
    };
    if structured {
        flags |= transmission_flag::SEND_DF;
    }
    flags
}
