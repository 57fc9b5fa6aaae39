//! isthmus-host
