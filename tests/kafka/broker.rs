//! A real Apache Kafka: a node that is broker and controller, in a folder and on ports of its own; alone, or one of several
//! that are a cluster.
//!
//! Its listeners: `plain`; `sasl`, where `good` may do everything and `poor` nothing (PLAIN and SCRAM-SHA-256);
//! `trusted`, TLS with a certificate of the authority in [`Broker::authority`]; `expired`, TLS with one that has ended;
//! `secret`, TLS with SCRAM-SHA-512 in it; `mutual`, TLS that asks for a certificate of that authority; and one that it says
//! is at the port [`Broker::front`], where a test may listen and pass on what it wants ([`crate::front`]).
//! Nobody makes topics by asking for them.
//!
//! Its programs are fetched by Maven into the build's folder, once. Where that cannot be done, or there is no Java, the
//! tests say so and are skipped; with WPGEN_TEST_ALL set, as CI has it, they fail.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use crate::leftovers::own_prefix;
use crate::papers::Papers;

/// The password of `good` and `poor`.
pub const PASSWORD: &str = "right";
/// The shortest session that this broker lets a member have.
pub const SESSION_MS_MIN: u32 = 3000;
/// A cluster id: any 16 bytes in base64.
const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
/// How often one is started anew whose port somebody has.
const RESTARTS_MAX: usize = 5;
/// Java takes its time on a machine that is busy.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// For a cluster: a node that is dead is missed within seconds. Until then the others say that it leads and coordinates what
/// it did, as they do for longer where nothing is set.
const SOON_MISSED: &str = "broker.heartbeat.interval.ms=500\nbroker.session.timeout.ms=6000\n";
/// Ports that are asked for before it is given up.
const STARTS_MAX: usize = 3;

/// Where it listens.
#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    sasl: u16,
    trusted: u16,
    expired: u16,
    secret: u16,
    mutual: u16,
    controller: u16,
    front: u16,
    behind: u16,
}

impl Ports {
    /// Free ones of so many nodes; held all at once, so that no two are the same.
    fn free(nodes: usize) -> Vec<Self> {
        let mut held = Vec::new();
        let mut port = || {
            held.push(TcpListener::bind("127.0.0.1:0").unwrap());
            held.last().unwrap().local_addr().unwrap().port()
        };
        let node = |_| Self {
            plain: port(),
            sasl: port(),
            trusted: port(),
            expired: port(),
            secret: port(),
            mutual: port(),
            controller: port(),
            front: port(),
            behind: port(),
        };
        (0..nodes).map(node).collect()
    }
}

/// A broker; it is killed with this, and with the process of the tests.
pub struct Broker {
    folder: tempfile::TempDir,
    papers: Papers,
    ports: Ports,
    /// Its number in its cluster.
    node: usize,
    heap: &'static str,
    child: Mutex<Option<Child>>,
}

impl Broker {
    /// The one that most tests share.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// One that a test has for itself, because it strikes it.
    pub fn start() -> Option<Self> {
        Self::start_several(1, "-Xmx512m")?.pop()
    }

    /// So many that are one cluster, with numbers from 1 on.
    pub fn start_several(nodes: usize, heap: &'static str) -> Option<Vec<Self>> {
        libraries()?;
        let papers = Papers::new();
        for _ in 0..STARTS_MAX {
            let ports = Ports::free(nodes);
            let voter = |(ports, node): (&Ports, usize)| format!("{node}@127.0.0.1:{}", ports.controller);
            let voters = ports.iter().zip(1..).map(voter).collect::<Vec<_>>().join(",");
            let prefix = own_prefix("kafka-data") + "-";
            let placed = |(ports, node)| {
                let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
                let folder = folder.unwrap();
                Self { folder, papers: papers.clone(), ports, node, heap, child: Mutex::new(None) }
            };
            let brokers: Vec<Self> = ports.iter().copied().zip(1..).map(placed).collect();
            std::thread::scope(|scope| {
                for broker in &brokers {
                    scope.spawn(|| {
                        broker.configure(&voters, nodes);
                        broker.format();
                        broker.spawn();
                    });
                }
            });
            if brokers.iter().all(Self::stands) {
                return Some(brokers);
            }
        }
        panic!("no broker stands after {STARTS_MAX} starts");
    }

    /// Where anybody may do everything.
    pub fn plain(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// Where a name and a password are asked for.
    pub fn sasl(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sasl)
    }

    /// TLS with a certificate as it should be.
    pub fn trusted(&self) -> String {
        format!("localhost:{}", self.ports.trusted)
    }

    /// TLS with a certificate that has ended.
    pub fn expired(&self) -> String {
        format!("localhost:{}", self.ports.expired)
    }

    /// TLS in which a name and a password are asked for, by SCRAM-SHA-512.
    pub fn secret(&self) -> String {
        format!("localhost:{}", self.ports.secret)
    }

    /// TLS in which a certificate is asked for.
    pub fn mutual(&self) -> String {
        format!("localhost:{}", self.ports.mutual)
    }

    /// The port that it says it listens on to who comes to [`Broker::behind`]; nobody does, unless a test.
    pub fn front(&self) -> u16 {
        self.ports.front
    }

    /// Where anybody may do everything, and is sent to [`Broker::front`] for it.
    pub fn behind(&self) -> String {
        format!("127.0.0.1:{}", self.ports.behind)
    }

    /// Certificate and key of a client that the authority has signed.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.papers.path("client.pem"), self.papers.path("client.key"))
    }

    /// The authority of its certificates.
    pub fn authority(&self) -> PathBuf {
        self.papers.path("ca.pem")
    }

    /// Lets a user do something with a thing, both as `kafka-acls.sh` calls them: `Read` with `--topic` and its name.
    pub fn allow(&self, user: &str, operation: &str, thing: [&str; 2]) {
        let mut java = java("-Xmx128m");
        java.args(["org.apache.kafka.tools.AclCommand", "--add", "--bootstrap-server", &self.plain()]);
        java.args(["--allow-principal", &format!("User:{user}"), "--operation", operation]).args(thing);
        let ran = java.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Kills it, with whatever it has not written.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it has been started, and not killed.
    pub fn is_up(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// Starts it anew, on the same ports with the same logs.
    pub fn restart(&self) {
        // A connection of somebody else's may have one of its ports for a moment.
        let stands = |_| {
            self.kill();
            self.spawn();
            self.stands()
        };
        assert!((0..RESTARTS_MAX).any(stands), "{}", self.words());
    }

    /// Waits until it stands; not so when it has ended, because a port was taken after all.
    fn stands(&self) -> bool {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.words().contains("Kafka Server started") {
            let ended =
                self.child.lock().unwrap().as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            if ended {
                eprintln!("{}", self.words());
                return false;
            }
            assert!(Instant::now() < deadline, "no broker within {START_PATIENCE:?}: {}", self.words());
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// The end of what it said since its last start.
    fn words(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn spawn(&self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let mut java = java(self.heap);
        java.arg("kafka.Kafka").arg(self.properties()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.child.lock().unwrap() = Some(spawn_for_all(java));
    }

    fn properties(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn format(&self) {
        let mut java = java("-Xmx128m");
        java.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(self.properties());
        for name in ["good", "poor"] {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                java.arg("--add-scram").arg(format!("{mechanism}=[name={name},password={PASSWORD}]"));
            }
        }
        let ran = java.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    fn configure(&self, voters: &str, nodes: usize) {
        let Ports { plain, sasl, trusted, expired, secret, mutual, controller, front, behind } = self.ports;
        let node = self.node;
        // What has been acknowledged is on all nodes but one.
        let kept_min = (nodes - 1).max(1);
        let patience = if nodes > 1 { SOON_MISSED } else { "" };
        let logs = self.folder.path().join("logs").display().to_string();
        let (good, old) = (self.papers.keystore("server"), self.papers.keystore("old"));
        let trusts = self.authority().display().to_string();
        let text = format!(
            "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TRUSTED://localhost:{trusted},EXPIRED://localhost:{expired},SECRET://localhost:{secret},MUTUAL://localhost:{mutual},FRONT://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TRUSTED://localhost:{trusted},EXPIRED://localhost:{expired},SECRET://localhost:{secret},MUTUAL://localhost:{mutual},FRONT://127.0.0.1:{front}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TRUSTED:SSL,EXPIRED:SSL,SECRET:SASL_SSL,MUTUAL:SSL,FRONT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_good=\"{PASSWORD}\" user_poor=\"{PASSWORD}\";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.trusted.ssl.keystore.type=PEM
listener.name.trusted.ssl.keystore.location={good}
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={old}
listener.name.secret.ssl.keystore.type=PEM
listener.name.secret.ssl.keystore.location={good}
listener.name.secret.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secret.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.mutual.ssl.keystore.type=PEM
listener.name.mutual.ssl.keystore.location={good}
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location={trusts}
listener.name.mutual.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:good;User:CN=client
log.dirs={logs}
auto.create.topics.enable=false
delete.topic.enable=true
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor={nodes}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={kept_min}
default.replication.factor={nodes}
min.insync.replicas={kept_min}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms={SESSION_MS_MIN}
connections.max.idle.ms=600000
{patience}"
        );
        fs::write(self.properties(), text).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address of a broker where anybody may do everything: the one of KAFKA_BROKERS, or ours.
pub fn plain() -> Option<String> {
    std::env::var("KAFKA_BROKERS").ok().or_else(|| Broker::shared().map(Broker::plain))
}

/// Java with Kafka's programs; quick to begin rather than quick in the end.
pub fn java(heap: &str) -> Command {
    let mut java = Command::new("java");
    java.args([heap, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    java.arg(format!("{}/*", libraries().expect("asked for before").display())).stdin(Stdio::null());
    java
}

/// Starts a program that is killed when the process of the tests ends, and not already with the test that started it:
/// the kernel counts the thread as the parent.
fn spawn_for_all(mut command: Command) -> Child {
    type Request = (Command, mpsc::Sender<Child>);
    static PARENT: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let parent = PARENT.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, reply) in requests {
                reply.send(command.spawn().unwrap()).unwrap();
            }
        });
        Mutex::new(sender)
    });
    // SAFETY: between fork and exec the closure only makes a system call.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let (reply, child) = mpsc::channel();
    parent.lock().unwrap().send((command, reply)).unwrap();
    child.recv().unwrap()
}

/// The folder with Kafka's programs.
fn libraries() -> Option<&'static Path> {
    static FETCHED: OnceLock<Option<PathBuf>> = OnceLock::new();
    FETCHED.get_or_init(|| fetch().map_err(|why| skip(&why)).ok()).as_deref()
}

fn skip(why: &str) {
    assert!(std::env::var_os("WPGEN_TEST_ALL").is_none(), "no Kafka to test with: {why}");
    // Past the capture of what tests print: who runs them must see it.
    let _ = writeln!(std::io::stderr(), "skipped: tests with a real Kafka, for want of one: {why}");
}

fn fetch() -> Result<PathBuf, String> {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka/pom.xml");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka");
    let (libraries, fetched) = (folder.join("libs"), folder.join("pom.xml"));
    let wanted = fs::read(&pom).unwrap();
    run(Command::new("java").arg("-version"))?;
    if fs::read(&fetched).is_ok_and(|found| found == wanted) {
        return Ok(libraries);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"]).arg(&pom);
    run(maven.arg(format!("-DoutputDirectory={}", libraries.display())))?;
    // Last: what was cut short is fetched again.
    fs::write(&fetched, wanted).unwrap();
    Ok(libraries)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Err(error) => Err(format!("{name}: {error}; apt-get install openjdk-17-jre-headless maven")),
        Ok(ran) if !ran.status.success() => {
            let words = [ran.stdout, ran.stderr].concat();
            Err(format!("{name}: {}: {}", ran.status, String::from_utf8_lossy(&words)))
        }
        Ok(_) => Ok(()),
    }
}
