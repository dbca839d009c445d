//! WP2xx: Kafka.

use super::{Entry, Words};
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP201,
        phrases: &["Failed to connect to Kafka cluster", "Connection refused", "Timeout while connecting to Kafka"],
        symptom: "Kafka 连接失败",
        english: Words {
            finds: "for each broker: name resolution, TCP, TLS, API version, metadata; the step that fails, and its time",
            mend: "correct 'brokers', or open the way to the step that fails",
            explain: "\
A broker is reached in steps, and the finding names the one that fails. A broker answers with the addresses it
advertises: when the first connection works and the next does not, it is those that cannot be reached from here.",
        },
        chinese: Words {
            finds: "逐个 broker：域名解析、TCP、TLS、API 版本、元数据，失败在哪一步、用了多久",
            mend: "改正 brokers，或打通失败的那一步",
            explain: "\
连接 broker 要经过几步，诊断会指出失败的那一步。broker 会返回它对外公布的地址：第一次能连上而后来连不上，
问题就在那些地址上。",
        },
        fails: "brokers = \"kafka1:9093\"      # the TLS port, without TLS",
        works: "brokers = [\"kafka1:9092\", \"kafka2:9092\"]",
    },
    Entry {
        code: Code::WP202,
        phrases: &["SASL authentication failed", "SSL handshake failed"],
        symptom: "Kafka 认证失败",
        english: Words {
            finds: "the mechanisms the broker offers against the one set; the certificate's subject, expiry and failed check",
            mend: "set sasl_mechanisms to one the broker offers, or name the authority that signed its certificate",
            explain: "\
Without sasl_mechanisms librdkafka assumes GSSAPI (Kerberos), which is seldom meant: set it. A failed handshake is
a certificate that has expired, was signed by an unknown authority, or is for another name.",
        },
        chinese: Words {
            finds: "broker 支持的机制与配置的机制；证书的主体、有效期和未通过的校验",
            mend: "把 sasl_mechanisms 设成 broker 支持的机制，或指定签发其证书的机构",
            explain: "\
不写 sasl_mechanisms 时 librdkafka 按 GSSAPI（Kerberos）处理，多半不是本意，请写明。握手失败的原因是证书过期、
签发机构未知，或证书属于另一个名字。",
        },
        fails: "config = { security_protocol = \"SASL_SSL\", sasl_username = \"u\", sasl_password = \"...\" }",
        works: "config = { security_protocol = \"SASL_SSL\", sasl_mechanisms = \"PLAIN\", ... }",
    },
    Entry {
        code: Code::WP203,
        phrases: &["Topic not found", "Unknown topic or partition"],
        symptom: "主题不存在",
        english: Words {
            finds: "topics of a near name on the broker, and whether making one is allowed",
            mend: "correct 'topic', or make it: create_topics = true",
            explain: "\
The broker knows no topic of this name, or we may not see it: a missing right to describe a topic looks the same.
A topic that begins with ^ is a regular expression and may match none for now.",
        },
        chinese: Words {
            finds: "broker 上名字相近的主题，以及是否允许自动创建",
            mend: "改正 topic，或创建它：create_topics = true",
            explain: "\
broker 没有这个名字的主题，或者我们看不到它：没有查看主题的权限时现象相同。以 ^ 开头的主题是正则表达式，
暂时可以一个都匹配不到。",
        },
        fails: "topic = \"app_log\"",
        works: "topic = \"app_logs\"",
    },
    Entry {
        code: Code::WP204,
        phrases: &["Consumer group rebalance failed", "Max poll interval exceeded"],
        symptom: "消费者组问题",
        english: Words {
            finds: "members and generation of the group, the time between polls, and what the sink took",
            mend: "raise session_timeout_ms or max_poll_interval_ms, or mend the sink that holds up",
            explain: "\
A member that does not answer in time is put out of its group, and its partitions move. wpgen pauses partitions
under backpressure and stays in the group, so this points at the network, or at another member of the group.",
        },
        chinese: Words {
            finds: "组成员与代次、两次轮询的间隔，以及其中输出用去的时间",
            mend: "调大 session_timeout_ms 或 max_poll_interval_ms，或处理拖慢的输出",
            explain: "\
成员没有及时应答就会被移出组，它的分区转给别人。wpgen 在背压时暂停分区而不离开组，
所以问题通常在网络，或在组里的另一个成员。",
        },
        fails: "config = { session_timeout_ms = 1000 }",
        works: "config = { session_timeout_ms = 30000, heartbeat_interval_ms = 3000 }",
    },
    Entry {
        code: Code::WP205,
        phrases: &["consumer lag"],
        symptom: "消费延迟高",
        english: Words {
            finds: "lag for each partition and its trend, and the stage that limits",
            mend: "widen the stage that limits; more partitions where one consumer is not enough",
            explain: "\
Producers write faster than is read here. Lag that grows evenly on all partitions comes from our side (sink,
CPU, network); on a single one, from a key that gets most of the messages.",
        },
        chinese: Words {
            finds: "每个分区的延迟和趋势，以及受限的一环",
            mend: "加宽受限的一环；单个消费者不够时增加分区",
            explain: "\
生产快于消费。所有分区同样增长，原因在我们这边（输出、CPU、网络）；只有一个分区增长，
是某个 key 占了大部分消息。",
        },
        fails: "config = { fetch_min_bytes = 1 } with a sink that syncs each batch",
        works: "config = { fetch_min_bytes = 102400 }",
    },
    Entry {
        code: Code::WP206,
        phrases: &[
            "transactional producer fenced",
            "another producer uses the transactional.id",
            "no right to the transactional.id",
        ],
        symptom: "Kafka 事务被隔离",
        english: Words {
            finds: "the transactional.id that another producer has taken, and what the broker said",
            mend: "stop the other engine of this transactional.id, or give each its own, and restart this one",
            explain: "\
A transactional.id belongs to one producer: a newer one of the same id puts the older one out, so that a program
that was thought dead cannot write on. The sink stops, and its sources wait; what is committed stays, and what was
open is aborted. Two engines share an id when one runs on a copy of the other's data folder, or both are given it.
Where the broker has ACLs, an id has them as well: the user needs Write and Describe on it (--transactional-id).",
        },
        chinese: Words {
            finds: "被另一个生产者占用的 transactional.id，以及 broker 的答复",
            mend: "停掉使用同一 transactional.id 的另一个引擎，或各用各的，然后重启本引擎",
            explain: "\
一个 transactional.id 只属于一个生产者：同一 id 的新生产者会隔离旧的，以免被认为已死的程序继续写入。
本输出停止，它的输入等待；已提交的保留，未提交的回滚。两个引擎共用一个 id，多半是其中一个用了另一个 data_dir 的拷贝，
或两边配置了同一个 id。broker 启用 ACL 时，id 也受其控制：用户需要它的 Write 和 Describe 权限（--transactional-id）。",
        },
        fails: "transactional_id = \"archive\"      # on two machines",
        works: "transactional_id = \"archive-host1\"",
    },
];
