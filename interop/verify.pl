#!/usr/bin/perl
# Verifies messages with Mail::SPF, Mail::DMARC and Mail::AuthenticationResults:
# verify.pl ADDRESS PORT DMARC_CONFIG < MESSAGES, by the DNS server there.
# Reads and prints JSON, a list of objects.  Of each message there has to be:
# ip, helo, sender (MAIL FROM), author (the domain in From), dkim (what was found
# out about signatures: domain, selector, result); and there can be field
# (Authentication-Results).
use strict;
use warnings;
use JSON::PP;
use Net::DNS::Resolver;
use Mail::AuthenticationResults::Parser;
use Mail::DMARC::PurePerl;
use Mail::SPF;

my ( $address, $port ) = @ARGV;
$ENV{MAIL_DMARC_CONFIG_FILE} = $ARGV[2];
my $dns = Net::DNS::Resolver->new(
    nameservers => [$address], port => $port, recurse => 1, dnsrch => 0,
    udp_timeout => 5, tcp_timeout => 5, retry => 1
);
my $spf = Mail::SPF::Server->new( dns_resolver => $dns, hostname => 'verify.test' );

my $json = JSON::PP->new->utf8->canonical;
my $messages = $json->decode( join '', <STDIN> );
print $json->encode( [ map { verify($_) } @$messages ] );

sub verify {
    my ($message) = @_;
    my $spf = spf($message);
    return { spf => $spf->{result}, dmarc => dmarc( $message, $spf ),
        field => $message->{field} ? field( $message->{field} ) : undef };
}

sub spf {
    my ($message) = @_;
    my $is_mfrom = $message->{sender} ne '';
    my $scope    = $is_mfrom ? 'mfrom' : 'helo';
    my $identity = $is_mfrom ? $message->{sender} : $message->{helo};
    my $result   = $spf->process(
        Mail::SPF::Request->new(
            scope => $scope, identity => $identity, helo_identity => $message->{helo},
            ip_address => $message->{ip}
        )
    );
    return { scope => $scope, domain => $identity =~ s/.*@//r,
        result => $result->code };
}

sub dmarc {
    my ( $message, $spf ) = @_;
    my $dmarc = Mail::DMARC::PurePerl->new;
    $dmarc->set_resolver($dns);
    $dmarc->source_ip( $message->{ip} );
    $dmarc->header_from( $message->{author} );
    $dmarc->dkim( $message->{dkim} );
    $dmarc->spf( [$spf] );
    my $result = $dmarc->validate;
    return { map { $_ => $result->$_ } qw(result disposition dkim spf) };
}

# Mail::AuthenticationResults knows RFC 8601.
sub field {
    my ($text) = @_;
    my $parsed = Mail::AuthenticationResults::Parser->new->parse($text);
    return { id => $parsed->value->value,
        results => [ map { result($_) } @{ $parsed->search({ isa => 'entry' })->children } ] };
}

sub result {
    my ($entry) = @_;
    my @properties = grep { $_->isa('Mail::AuthenticationResults::Header::SubEntry') }
      @{ $entry->children };
    return { method => $entry->key, result => $entry->value,
        properties => { map { $_->key => $_->value } @properties } };
}
