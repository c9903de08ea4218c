#!/usr/bin/perl
# Verifies the DKIM signatures of a message by Mail::DKIM, with keys from one
# DNS server: dkim.pl ADDRESS PORT < MESSAGE
# Prints a line for each signature: algorithm, selector, domain, result, detail.
use strict;
use warnings;
use MIME::Base64 qw(decode_base64);
use Net::DNS::Resolver;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Mail::DKIM::Algorithm::rsa_sha256;

my ( $address, $port ) = @ARGV;
my $dns = Net::DNS::Resolver->new(
    nameservers => [$address], port => $port, recurse => 1,
    udp_timeout => 5, tcp_timeout => 5, retry => 1
);
Mail::DKIM::DNS::resolver($dns);

teach_ed25519()
  unless Mail::DKIM::Signature->new->get_algorithm_class('ed25519-sha256');

my $verifier = Mail::DKIM::Verifier->new;
while ( my $line = <STDIN> ) {
    $line =~ s/\r?\n\z/\r\n/;    # a Maildir has lines as this host does
    $verifier->PRINT($line);
}
$verifier->CLOSE;
for my $signature ( $verifier->signatures ) {
    printf "%s\t%s\t%s\t%s\t%s\n", $signature->algorithm, $signature->selector,
      $signature->domain, $signature->result, $signature->result_detail;
}

# Mail::DKIM of Debian 12 is from before it knew of RFC 8463.  What is hard,
# canonicalization and what is hashed, is the same as with RSA: Mail::DKIM does
# it.  Only the last step is added, by CryptX.
sub teach_ed25519 {
    no warnings 'redefine';
    my $class_of = \&Mail::DKIM::Signature::get_algorithm_class;
    *Mail::DKIM::Signature::get_algorithm_class = sub {
        my ( $self, $name ) = @_;
        return $name eq 'ed25519-sha256' ? 'Ed25519' : $class_of->( $self, $name );
    };
    my $hash_of = \&Mail::DKIM::Signature::hash_algorithm;
    *Mail::DKIM::Signature::hash_algorithm = sub {
        my ($self) = @_;
        return $self->algorithm eq 'ed25519-sha256' ? 'sha256' : $hash_of->($self);
    };
    my $check = \&Mail::DKIM::PublicKey::check;
    *Mail::DKIM::PublicKey::check = sub {
        my ($self) = @_;
        return $check->($self) if ( $self->get_tag('k') // 'rsa' ) ne 'ed25519';
        my $bytes = decode_base64( $self->data // '' );
        die "not an Ed25519 key\n" if length $bytes != 32;
        my $key = Crypt::PK::Ed25519->new->import_key_raw( $bytes, 'public' );
        $self->cork( bless $key, 'Ed25519Key' );
        return 1;
    };
}

package Ed25519Key;
use parent 'Crypt::PK::Ed25519';

sub size { return 32 }    # Mail::DKIM asks for that of every key

package Ed25519;
use parent -norequire, 'Mail::DKIM::Algorithm::rsa_sha256';
use MIME::Base64 qw(decode_base64);

# RFC 8463 3: what is signed is the hash.
sub verify {
    my ($self) = @_;
    my $hash   = $self->{header_digest}->digest;
    my $key    = $self->signature->get_public_key->cork;
    die "the key is for another algorithm\n" unless $key->isa('Ed25519Key');
    return
      unless $key->verify_message( decode_base64( $self->signature->data ), $hash );
    return $self->check_body_hash;
}
